"""Where values lie on an axis, and its ticks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report.html.axes import Scale, linear, logarithmic

VALUES = st.floats(min_value=1e-6, max_value=1e9)


def test_a_linear_scale_puts_the_middle_in_the_middle() -> None:
    scale = Scale(0.0, 10.0, 0.0, 100.0)
    assert [scale(value) for value in (0.0, 5.0, 10.0, -3.0, 12.0)] == [0.0, 50.0, 100.0, 0.0, 100.0]
    assert Scale(1.0, 100.0, 300.0, 0.0, log=True)(10.0) == pytest.approx(150.0)


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0.0, 1.05, 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.43, 1.04, 5, [0.6, 0.8, 1.0]),
        (0.0, 35.0, 5, [0.0, 10.0, 20.0, 30.0]),
        (91.2, 92.1, 6, [91.2, 91.4, 91.6, 91.8, 92.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 1).ticks(most) == pytest.approx(ticks)


def test_ticks_of_a_logarithmic_scale_are_of_a_few_digits() -> None:
    assert Scale(0.02, 12.0, 0, 1, log=True).ticks() == pytest.approx([0.1, 1.0, 10.0])
    assert Scale(0.4, 6.0, 0, 1, log=True).ticks() == pytest.approx([0.5, 1.0, 2.0, 5.0])


@given(low=VALUES, span=st.floats(min_value=1e-3, max_value=1e3), most=st.integers(2, 8))
def test_there_are_ticks_but_not_too_many_and_all_lie_on_the_scale(low: float, span: float, most: int) -> None:
    high = low * (1 + span)
    room = (high - low) * 1e-6
    for scale in (Scale(low, high, 0, 1), Scale(low, high, 0, 1, log=True)):
        ticks = scale.ticks(most)
        assert len(ticks) <= most
        assert all(low - room <= tick <= high + room for tick in ticks)
        assert ticks == sorted(set(ticks))


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_every_value_has_a_place_inside(values: list[float]) -> None:
    for scale in (linear(values, 1.0, 99.0), logarithmic(min(values), max(values), 1.0, 99.0)):
        assert all(1.0 <= scale(value) <= 99.0 for value in values)
        assert all(scale.low <= value * (1 + 1e-9) and value <= scale.high * (1 + 1e-9) for value in values)


def test_bins_are_of_equal_length_on_the_scale() -> None:
    scale = logarithmic(0.1, 10.0, 0.0, 100.0)
    edges = scale.edges(4)
    assert [scale(edge) for edge in edges] == pytest.approx([0, 25, 50, 75, 100])
    assert Scale(0, 8, 0, 1).edges(4) == [0, 2, 4, 6, 8]
