"""The widths that a planning search chooses among."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from edgeprune.pipeline.planning import thinned
from edgeprune.search.base import GroupSpace


def kept(widths: Sequence[int]) -> tuple[int, ...]:
    return thinned(GroupSpace("g", widths[-1], (1.0,) * widths[-1], tuple(widths))).widths


def test_few_widths_all_stay() -> None:
    assert kept(range(8, 129, 8)) == tuple(range(8, 129, 8))


@pytest.mark.parametrize("count", [17, 18, 31, 64, 100, 1000])
def test_many_are_thinned_evenly_from_the_least_to_the_dense_one(count: int) -> None:
    found = kept(range(3, 3 + count))
    assert len(found) == 16
    assert (found[0], found[-1]) == (3, count + 2)
    assert max(b - a for a, b in pairwise(found)) <= 2 * (count - 1) / 15 + 1


def test_the_aligned_widths_are_the_ones_that_stay() -> None:
    found = kept(range(1, 65))
    assert all(width % 4 == 0 for width in found[1:])
    assert {16, 32, 48, 64} < set(found)
    assert all(width % 16 == 0 for width in kept(range(8, 513, 8))[1:])
