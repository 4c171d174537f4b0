"""The ladder of networks that the uniform strategy bisects."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from edgeprune.records.candidate import Candidate
from edgeprune.search.base import GroupSpace, SearchSpace
from edgeprune.search.uniform import _networks


def estimate(candidate: Candidate) -> Mapping[str, float]:
    raise AssertionError("the ladder needs no estimate")


def space() -> SearchSpace:
    return SearchSpace(
        (
            GroupSpace("a", 16, tuple(float(16 - u) for u in range(16)), (8, 16)),
            GroupSpace("b", 32, tuple(0.1 * (32 - u) for u in range(32)), (8, 16, 24, 32)),
            GroupSpace("c", 16, tuple(1.0 for _ in range(16)), (8, 16)),
        ),
        estimate,
    )


def width(candidate: Candidate, group: str, full: int) -> int:
    return len(candidate.kept.get(group, range(full)))


def test_every_step_narrows_one_group_and_every_uniform_network_is_on_the_ladder() -> None:
    networks = _networks(space())
    widths = [tuple(width(c, g.name, g.units) for g in space().groups) for c in networks]
    assert widths[0] == (16, 32, 16)
    assert widths[-1] == (8, 8, 8)
    for wider, narrower in pairwise(widths):
        assert sum(a != b for a, b in zip(wider, narrower, strict=True)) == 1
        assert all(a >= b for a, b in zip(wider, narrower, strict=True))
    uniform = {space().candidate(space().uniform(keep / 1000)).id for keep in range(1001)}
    assert uniform <= {candidate.id for candidate in networks}


def test_between_two_uniform_networks_the_least_important_units_go_first() -> None:
    # From half upwards, "a" loses units of mean importance 4.5, "c" of importance 1: "c" is narrowed before "a".
    widths = [(width(c, "a", 16), width(c, "c", 16)) for c in _networks(space())]
    assert widths.index((16, 8)) < widths.index((8, 8))
    assert (8, 16) not in widths
