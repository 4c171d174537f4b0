"""What is asked of a solver: widths and blocks of least loss (or least cost) under limits on what is predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeprune.records.candidate import Candidate
from edgeprune.search.base import GroupSpace, SearchSpace
from edgeprune.search.costs import MetricModel

__all__ = ["LOSS", "RELAXATION", "Choice", "Infeasible", "Problem", "Solution", "losses", "predicted_loss"]

LOSS = "loss"  # the predicted loss of accuracy, as an objective or under a limit
RELAXATION = "relaxation"  # the objective: by which share all limits must grow


@dataclass(frozen=True, slots=True)
class Choice:
    """A width per group, and the dropped blocks; groups inside of a dropped block are not named."""

    widths: Mapping[str, int]
    dropped: frozenset[str] = frozenset()

    @classmethod
    def of(cls, candidate: Candidate, space: SearchSpace) -> Choice:
        """The choice that the candidate stands for."""
        dropped = frozenset(candidate.dropped_blocks)
        gone = {group for block in space.blocks if block.name in dropped for group in block.groups}
        widths = {g.name: len(candidate.kept.get(g.name, range(g.units))) for g in space.groups if g.name not in gone}
        return cls(widths, dropped)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Minimise `minimise` ("loss", "relaxation", or a figure) under `limits`, per figure or "loss" an upper bound.

    `limits` are what "relaxation" relaxes, `caps` hold in any case. A solution differs from each of `excluded` in
    `distance` groups or blocks, and is somewhere narrower than each of `too_large`.
    """

    space: SearchSpace
    metrics: Mapping[str, MetricModel]
    limits: Mapping[str, float] = field(default_factory=dict)
    minimise: str = LOSS
    caps: Mapping[str, float] = field(default_factory=dict)
    excluded: tuple[Choice, ...] = ()
    distance: int = 1
    too_large: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class Solution:
    """What was chosen, the objective's value there, and by which share of it a better one may lie below."""

    choice: Choice
    value: float
    gap: float


@dataclass(frozen=True, slots=True)
class Infeasible:
    """No choice was found. `proved`: there is none; else only the search for one came to an end."""

    proved: bool


def losses(group: GroupSpace) -> tuple[float, ...]:
    """The predicted loss at each width; where not known, the share of the importance that is removed."""
    if group.losses:
        return group.losses
    scores = sorted(group.scores, reverse=True)
    whole = sum(abs(score) for score in scores) or 1.0
    return tuple(sum(abs(score) for score in scores[width:]) / whole for width in group.widths)


def predicted_loss(space: SearchSpace, choice: Choice) -> float:
    """The sum of what each group and each dropped block loses alone."""
    narrowed = sum(
        losses(group)[group.widths.index(choice.widths[group.name])]
        for group in space.groups
        if group.name in choice.widths
    )
    return narrowed + sum(block.loss for block in space.blocks if block.name in choice.dropped)
