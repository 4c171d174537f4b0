"""What an operator costs at widths that were not timed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeprune.pipeline.cost_tables import aligned, everywhere, filled, interpolated, on_lines, spread

WIDTHS = tuple(range(8, 129, 8))


def _stairs(widths: tuple[int, ...], block: int) -> NDArray[np.float64]:
    """A kernel that works on whole blocks of channels."""
    return np.asarray([-(-width // block) * block for width in widths], dtype=np.float64)


def _timed(truth: NDArray[np.float64], grid: tuple[tuple[int, ...], ...]) -> NDArray[np.float64]:
    """The truth on the lines alone."""
    lines = set(on_lines(grid))
    known = np.asarray([place in lines for place in everywhere(grid)]).reshape(truth.shape)
    return np.where(known, truth, np.nan)


def test_lines_are_the_ends_and_one_aligned_width_between_them() -> None:
    places = on_lines((WIDTHS, WIDTHS))
    assert len(places) == len(set(places)) == 3 * 16 + 3 * 16 - 9
    assert {(a, b) for a, b in places if a not in (8, 64, 128)} == {
        (a, b) for a in WIDTHS for b in (8, 64, 128) if a not in (8, 64, 128)
    }
    assert on_lines((WIDTHS,)) == tuple((width,) for width in WIDTHS)
    assert on_lines(((8, 16, 24), WIDTHS)) == everywhere(((8, 16, 24), WIDTHS))
    assert on_lines(()) == ((),)


def _told(truth: NDArray[np.float64], grid: tuple[tuple[int, ...], ...]) -> NDArray[np.float64]:
    found = filled(_timed(truth, grid), grid)
    assert found is not None
    known = ~np.isnan(_timed(truth, grid))
    assert (found[known] == truth[known]).all()
    return found


@pytest.mark.parametrize("blocks", [(16, 16), (32, 16), (8, 64)])
def test_stairs_over_both_widths_are_known_from_the_lines(blocks: tuple[int, int]) -> None:
    """Linear between every other width is off by a third where stairs are."""
    grid = (WIDTHS, WIDTHS)
    truth = 1e-6 * np.outer(_stairs(WIDTHS, blocks[0]), _stairs(WIDTHS, blocks[1]))
    assert np.abs(_told(truth, grid) - truth).max() < 0.01 * truth.max()
    places = [WIDTHS.index(width) for width in spread(WIDTHS, 8)]
    coarse = interpolated(truth[np.ix_(places, places)], (spread(WIDTHS, 8),) * 2, grid)
    assert np.abs(coarse - truth).max() > 0.05 * truth.max()


@pytest.mark.parametrize("widest", [128, 256, 512, 2048])
@pytest.mark.parametrize("call", [0.0, 0.001, 0.01, 0.05])
def test_a_call_and_a_product_are_told_over_any_range(widest: int, call: float) -> None:
    """No place is told to cost nothing: a solver would go there."""
    widths = aligned(tuple(range(8, widest + 1, 8)), 16)
    grid = (widths, widths)
    work = np.outer(_stairs(widths, 16), _stairs(widths, 8))
    for truth in (call * work.max() + work, np.maximum(call * work.max(), work)):
        found = _told(truth, grid)
        assert np.abs(found - truth).max() < 0.03 * truth.max()
        assert (found > 0.4 * truth).all()


def test_what_does_not_multiply_is_blended_between_the_lines() -> None:
    grid = (WIDTHS, tuple(range(8, 257, 16)))
    a, b = _stairs(grid[0], 16)[:, None], _stairs(grid[1], 16)[None, :]
    truth = 3.0 + 0.05 * a + 0.02 * b + 0.01 * a * b  # a call, the reading of each side, and the work
    assert np.abs(_told(truth, grid) / truth - 1).max() < 0.15


def test_what_takes_no_time_stays_finite_and_is_never_negative() -> None:
    grid = (WIDTHS, WIDTHS)
    truth = np.maximum(np.outer(_stairs(WIDTHS, 16), _stairs(WIDTHS, 16)) - 3000.0, 0.0)
    found = _told(truth, grid)
    assert (found >= 0).all()
    assert np.abs(found - truth).max() < 0.1 * truth.max()
    assert (_told(np.zeros((16, 16)), grid) == 0).all()


def test_wrong_corners_move_what_is_told_no_further_than_the_lines_allow() -> None:
    """A profiler of whole microseconds tells 0 for what is short."""
    grid = (WIDTHS, WIDTHS)
    truth = np.outer(_stairs(WIDTHS, 16), _stairs(WIDTHS, 16))
    told = truth.copy()
    told[0, -1] = told[-1, 0] = 0.0
    assert 0 <= _told(told, grid).min() <= _told(told, grid).max() <= 1.5 * truth.max()
    random = np.random.default_rng(0)
    for _ in range(50):
        noisy = np.maximum(0.0, np.round(truth / truth.max() * 6 + random.normal(0, 0.4, truth.shape)))
        assert _told(noisy, grid).max() <= 1.5 * noisy.max()


def test_what_failed_is_told_by_the_others() -> None:
    grid = (WIDTHS, WIDTHS)
    truth = np.outer(_stairs(WIDTHS, 16), _stairs(WIDTHS, 32))
    some = truth.copy()
    some[3, 5] = some[9, 12] = some[3, 6] = np.nan
    found = filled(some, grid)
    assert found is not None
    assert np.abs(found - truth).max() < 0.005 * truth.max()
    some[5, -1] = np.nan  # of an end
    assert filled(some, grid) is None
    assert filled(np.asarray([1.0, np.nan, 3.0]), ((8, 16, 24),)) is None


def test_a_whole_table_is_left_as_it_is() -> None:
    values = np.random.default_rng(0).random((16, 16))
    assert filled(values, (WIDTHS, WIDTHS)) is values
    line = np.arange(16.0)
    assert filled(line, (WIDTHS,)) is line


def test_between_widths_it_is_linear() -> None:
    found = interpolated(np.asarray([[1.0, 3.0], [5.0, 7.0]]), ((8, 16), (4, 8)), ((8, 12, 16), (4, 5, 8)))
    assert found == pytest.approx(np.asarray([[1.0, 1.5, 3.0], [3.0, 3.5, 5.0], [5.0, 5.5, 7.0]]))


def test_widths_are_spread_evenly_or_to_aligned_ones() -> None:
    assert spread(WIDTHS, 16) == aligned(WIDTHS, 16) == WIDTHS
    assert spread(WIDTHS, 5) == (8, 40, 72, 96, 128)
    assert aligned(WIDTHS, 5) == (8, 32, 64, 96, 128)
    assert aligned((8, 16, 24, 32), 3) == (8, 16, 32)
