"""Candidates spread over the whole space, for learning what widths cost."""

from __future__ import annotations

import numpy as np

from edgeprune.records.candidate import Candidate
from edgeprune.search.base import SearchSpace

__all__ = ["latin_hypercube", "random_candidates"]


def latin_hypercube(space: SearchSpace, count: int, seed: int) -> tuple[Candidate, ...]:
    """`count` candidates such that every group has each `count`-th part of its allowed widths once.

    Latin hypercube sampling (McKay, Beckman and Conover 1979, doi:10.2307/1268522); no block is dropped. The same for
    the same seed.
    """
    generator = np.random.default_rng([seed, count])
    strata = np.stack([generator.permutation(count) for _ in space.groups])
    places = (strata + generator.random(strata.shape)) / count
    return tuple(
        space.candidate(
            {
                group.name: group.widths[int(place * len(group.widths))]
                for group, place in zip(space.groups, column, strict=True)
            }
        )
        for column in places.T
    )


def random_candidates(space: SearchSpace, count: int, seed: int, *, drop_share: float = 0.0) -> tuple[Candidate, ...]:
    """`count` candidates with widths drawn independently, and each block dropped with the probability `drop_share`."""
    generator = np.random.default_rng([seed, count, 1])
    found = []
    for _ in range(count):
        chosen = {group.name: group.widths[int(generator.integers(len(group.widths)))] for group in space.groups}
        dropped = [block.name for block in space.blocks if generator.random() < drop_share]
        found.append(space.candidate(chosen, dropped))
    return tuple(found)
