"""Which atoms go together, however they were tied: whole ranges at once, parts of them, in any order."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.graph.capture import capture
from edgeprune.graph.ties import Ties

SIZES = (1, 3, 4, 4, 4, 6, 6, 12)


def merged(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The components, numbered in the order of their first nodes, one edge at a time."""
    group = list(range(count))
    for a, b in pairs:
        group = [group[a] if g == group[b] else g for g in group]
    numbers: dict[int, int] = {}
    return [numbers.setdefault(g, len(numbers)) for g in group]


@st.composite
def ties(draw: st.DrawFn) -> list[tuple[int, int, slice]]:
    """Two ranges of the same size, and which part of them goes together index by index."""
    found = []
    for _ in range(draw(st.integers(0, 12))):
        one = draw(st.sampled_from(range(len(SIZES))))
        other = draw(st.sampled_from([i for i, size in enumerate(SIZES) if size == SIZES[one]]))
        part = draw(
            st.sampled_from([slice(None), slice(None), slice(1, None), slice(None, None, 2), slice(None, None, -1)])
        )
        found.append((one, other, part))
    return found


@given(ties())
def test_ranges_go_together_as_their_atoms_do(chosen: list[tuple[int, int, slice]]) -> None:
    known = Ties()
    ranges = [known.fresh(size) for size in SIZES]
    pairs: list[tuple[int, int]] = []
    for one, other, part in chosen:
        first, second = ranges[one], ranges[other]
        if part != slice(None):  # reversed or thinned out on one side: not index by index any more
            first = first[part]
            second = second[: len(first)]
        known.tie(first, second)
        pairs += zip(first.tolist(), second.tolist(), strict=True)
    known.connect()
    assert known.component.tolist() == merged(1 + sum(SIZES), pairs)
    known.connect()  # nothing is forgotten when more is tied later
    known.tie(ranges[2], ranges[3])
    known.connect()
    pairs += zip(ranges[2].tolist(), ranges[3].tolist(), strict=True)
    assert known.component.tolist() == merged(1 + sum(SIZES), pairs)


def test_ranges_tied_whole_are_alike_and_others_are_not() -> None:
    known = Ties()
    first, second, third, fourth = (known.fresh(5) for _ in range(4))
    known.tie(third, second)
    known.tie(first, second)
    known.tie(fourth[::-1], first)
    known.connect()
    assert known.alike(first) == known.alike(second) == known.alike(third) == 1
    assert known.alike(fourth) != known.alike(first)  # the same components, in another order
    copy = first.copy()
    assert known.alike(copy) not in {known.alike(atoms) for atoms in (first, second, third, fourth)}


def test_empty_ranges_tie_nothing() -> None:
    known = Ties()
    empty, first, none, second = known.fresh(0), known.fresh(3), known.fresh(0), known.fresh(3)
    known.tie(empty, none)
    known.connect()
    assert known.component.tolist() == list(range(7))
    assert len({known.alike(atoms) for atoms in (empty, first, none, second)}) == 4


def test_a_shape_is_part_of_what_is_tied() -> None:
    known = Ties()
    flat, square, column = known.fresh(4), known.fresh(2, 2), known.fresh(2)
    known.tie(flat.reshape(2, 2), square)
    known.tie(square, column[:, None])  # both of a row go with one
    known.connect()
    assert known.component.tolist() == [0, 1, 1, 2, 2, 1, 1, 2, 2, 1, 2]


def test_members_of_one_pattern_share_their_indices() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)
    ).eval()
    (group,) = capture(model, torch.randn(1, 3, 9, 9)).groups
    assert [(m.parameter, m.dim) for m in group.members] == [
        ("0.weight", 0),
        ("0.bias", 0),
        ("1.weight", 0),
        ("1.bias", 0),
        ("3.weight", 1),
        ("1.running_mean", 0),
        ("1.running_var", 0),
    ]
    assert len({id(member.indices) for member in group.members}) == 1
    np.testing.assert_array_equal(group.members[0].indices, np.arange(8)[:, None])


def test_an_input_may_be_called_output() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

        def forward(self, output: torch.Tensor) -> torch.Tensor:
            return cast("torch.Tensor", self.second(self.first(output).relu()))

    captured = capture(Net(), torch.randn(3, 4))
    small = captured.prune(captured.uniform(0.5))
    names = [node.name for node in small.module.graph.nodes]
    assert names == [node.name for node in captured.module.graph.nodes]
    assert len(names) == len(set(names))
    added = small.module.graph.create_node("get_attr", "output")  # what is taken is known to be
    assert added.name not in names
