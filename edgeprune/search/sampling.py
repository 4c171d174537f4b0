"""Candidates spread over the whole space, for learning what widths cost."""

from __future__ import annotations

import numpy as np

from edgeprune.records.candidate import Candidate
from edgeprune.search.base import SearchSpace

__all__ = ["latin_hypercube", "random_candidates"]


def latin_hypercube(space: SearchSpace, count: int, seed: int, *, drop_share: float = 0.0) -> tuple[Candidate, ...]:
    """`count` candidates such that every group has each `count`-th part of its allowed widths once.

    Latin hypercube sampling (McKay, Beckman and Conover 1979, doi:10.2307/1268522). Each block is dropped in the share
    `drop_share` of the candidates (rounded to a whole number of them). The same for the same seed.
    """
    generator = np.random.default_rng([seed, count])
    strata = np.stack([generator.permutation(count) for _ in space.groups])
    places = (strata + generator.random(strata.shape)) / count
    gone = [set(generator.permutation(count)[: round(drop_share * count)].tolist()) for _ in space.blocks]
    return tuple(
        space.candidate(
            {
                group.name: group.widths[int(place * len(group.widths))]
                for group, place in zip(space.groups, column, strict=True)
            },
            [block.name for block, numbers in zip(space.blocks, gone, strict=True) if number in numbers],
        )
        for number, column in enumerate(places.T)
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
