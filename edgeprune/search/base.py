"""The seam between a search and the rest: a strategy is asked for proposals and told what became of them.

A strategy knows neither torch nor devices. It sees the space (groups, units, how important each unit is, a
cheap estimate of cost) and the trials; it decides which candidates to try next, and to which stage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.explanation import Explanation
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.costs import CostModel

__all__ = ["BlockSpace", "Evaluate", "Explains", "GroupSpace", "Proposal", "SearchSpace", "Strategy"]

Evaluate = Callable[[Candidate, Stage, int], Trial]  # (candidate, stage, trial number) -> trial


@dataclass(frozen=True, slots=True)
class GroupSpace:
    """One prunable channel group: `scores` holds the importance of each unit (higher is kept longer).

    Widths that the search may choose are `widths`, ascending, the last one being the dense width. `losses` are the
    predicted losses of accuracy at each of them (0 at the last), each group narrowed alone; empty where not known.
    """

    name: str
    units: int
    scores: tuple[float, ...]
    widths: tuple[int, ...]
    losses: tuple[float, ...] = ()

    def keep(self, width: int) -> tuple[int, ...]:
        """The `width` most important units, in ascending order; ties go to the lower index."""
        order = sorted(range(self.units), key=lambda unit: (-self.scores[unit], unit))
        return tuple(sorted(order[:width]))


@dataclass(frozen=True, slots=True)
class BlockSpace:
    """One residual block that may be dropped, and the predicted loss of accuracy; `groups` matter only inside it."""

    name: str
    loss: float
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """All prunable groups and blocks, and an estimate of a candidate's cost as a share of the dense model's (1.0).

    `costs` predicts figures; None where nothing was learned of the device.
    """

    groups: tuple[GroupSpace, ...]
    estimate: Callable[[Candidate], Mapping[str, float]]  # {"macs": 0.41, "params": 0.38, "activations": 0.6}
    blocks: tuple[BlockSpace, ...] = ()
    costs: CostModel | None = None

    def candidate(self, widths: Mapping[str, int], dropped: Collection[str] = ()) -> Candidate:
        """The candidate that keeps the most important units; groups at full width are left out.

        So are groups that matter only inside a dropped block.
        """
        gone = {group for block in self.blocks if block.name in dropped for group in block.groups}
        return Candidate(
            kept={
                g.name: g.keep(widths[g.name])
                for g in self.groups
                if g.name not in gone and widths.get(g.name, g.units) < g.units
            },
            dropped_blocks=tuple(sorted(dropped)),
        )

    def uniform(self, keep: float) -> dict[str, int]:
        """For each group the allowed width nearest to `keep` (a share, 1.0 is dense) times its units."""
        return {g.name: min(g.widths, key=lambda w, g=g: (abs(w - keep * g.units), w)) for g in self.groups}  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate to try, and how far.

    A measurement that is out of the range `expected` of a figure (lowest, highest) is done again before it is told.
    """

    candidate: Candidate
    stage: Stage
    why: str = field(default="", compare=False)
    expected: Mapping[str, tuple[float, float]] = field(default_factory=dict, compare=False)


@runtime_checkable
class Strategy(Protocol):
    """Ask/tell. Deterministic for a given seed and given trials: a resumed run replays the journal through `tell`."""

    def ask(self) -> Sequence[Proposal]:
        """The next proposals; an empty sequence ends the search."""

    def tell(self, trial: Trial) -> None:
        """What became of a proposal. Called once per proposal, in the order of asking."""


@runtime_checkable
class Explains(Protocol):
    """What a strategy may offer besides: it knows more of its end than the trials tell."""

    def explain(self) -> Explanation:
        """What bound the search, what could not be planned for, why there is no solution; asked for at the end."""


class StrategyFactory(Protocol):
    """How a strategy is made; the baseline is the trial of the dense model."""

    def __call__(self, space: SearchSpace, budget: Budget, baseline: Trial, *, seed: int) -> Strategy: ...
