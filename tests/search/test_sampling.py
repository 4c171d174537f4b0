from __future__ import annotations

from edgeprune.search.base import BlockSpace, GroupSpace, SearchSpace
from edgeprune.search.sampling import latin_hypercube, random_candidates


def space() -> SearchSpace:
    groups = tuple(GroupSpace(f"g{i}", 64, tuple(range(64)), tuple(range(8, 65, 8))) for i in range(5))
    return SearchSpace(groups, lambda _: {}, blocks=(BlockSpace("b", 0.1, ("g1", "g2")),))


def test_every_group_has_every_part_of_its_widths_once() -> None:
    candidates = latin_hypercube(space(), 8, seed=3)
    for group in space().groups:
        widths = sorted(len(candidate.kept.get(group.name, range(64))) for candidate in candidates)
        assert widths == list(range(8, 65, 8))
    assert candidates == latin_hypercube(space(), 8, seed=3)
    assert candidates != latin_hypercube(space(), 8, seed=4)
    few = latin_hypercube(space(), 4, seed=0)
    for group in space().groups:
        parts = sorted((len(candidate.kept.get(group.name, range(64))) - 8) // 16 for candidate in few)
        assert parts == [0, 1, 2, 3]


def test_blocks_are_dropped_as_often_as_is_asked_for() -> None:
    found = latin_hypercube(space(), 10, seed=1, drop_share=0.3)
    assert sum(candidate.dropped_blocks == ("b",) for candidate in found) == 3
    assert not any({"g1", "g2"} & set(candidate.kept) for candidate in found if candidate.dropped_blocks)
    assert not any(candidate.dropped_blocks for candidate in latin_hypercube(space(), 10, seed=1))


def test_random_candidates_drop_blocks_with_the_groups_inside() -> None:
    found = random_candidates(space(), 200, seed=0, drop_share=0.5)
    dropped = [candidate for candidate in found if candidate.dropped_blocks]
    assert 70 <= len(dropped) <= 130
    assert not any({"g1", "g2"} & set(candidate.kept) for candidate in dropped)
    assert not any(candidate.dropped_blocks for candidate in random_candidates(space(), 20, seed=0))
