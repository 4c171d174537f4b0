"""What a candidate is predicted to cost: linear in the choice of widths and blocks, so that a solver can use it.

A cost model knows neither torch nor devices: an operator's cost is a table over the allowed widths of the one or two
groups that it depends on. How the tables came about (measured on the device, counted) is for who makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeprune.records.candidate import Candidate

__all__ = ["CostModel", "MetricModel", "Sum", "Term"]


@dataclass(frozen=True, slots=True)
class Sum:
    """A width that several groups add up to, as behind a concatenation; terms name it as they name a group.

    `parts` are (group, how much each of its units counts, its allowed widths in units, ascending, the last one dense).
    """

    name: str
    parts: tuple[tuple[str, int, tuple[int, ...]], ...]
    constant: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """All that it can be, ascending; the last one is dense."""
        return self.reachable({group: widths for group, _, widths in self.parts})

    def reachable(self, widths: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """All that it can be where the groups have these widths."""
        totals = {self.constant}
        for group, each, _ in self.parts:
            totals = {total + each * width for total in totals for width in widths[group]}
        return tuple(sorted(totals))

    def at(self, kept: Mapping[str, int]) -> int:
        """What it is at so many kept units per group (dense where not named)."""
        return self.constant + sum(each * kept.get(group, widths[-1]) for group, each, widths in self.parts)


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One operator's (or tensor's) cost, in the unit of its metric.

    `table` has one axis per group (or sum of groups) in `groups` (none, one or two): entry [k, l] is the cost where
    the first has its k-th allowed width and the second its l-th, `widths` (units of a group; ascending, the last one
    dense). The cost vanishes where any of `blocks` is dropped. `kind` is the class of operators that is recalibrated
    together.
    """

    name: str
    kind: str
    groups: tuple[str, ...]
    widths: tuple[tuple[int, ...], ...]
    table: NDArray[np.float64]
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.table.shape != tuple(len(widths) for widths in self.widths) or len(self.groups) != len(self.widths):
            raise ValueError(f"{self.name}: a table of {self.table.shape} over {self.groups}")

    def at(self, kept: Mapping[str, int], dropped: frozenset[str]) -> float:
        """The cost at so many kept units per group (dense where not named); raises KeyError at a width not allowed."""
        if not dropped.isdisjoint(self.blocks):
            return 0.0
        place = []
        for group, widths in zip(self.groups, self.widths, strict=True):
            width = kept.get(group, widths[-1])
            if width not in widths:
                raise KeyError(f"{self.name}: {group} has no width of {width}")
            place.append(widths.index(width))
        return float(self.table[tuple(place)])


@dataclass(frozen=True, slots=True, eq=False)
class MetricModel:
    """One figure: `offset` + the weighted sum of `terms` + the largest weighted sum of a step.

    `steps` are for what is not a sum: memory is largest at one step of the schedule. `weights` are per kind of term
    (1 where not named); `margin` is the share by which a figure may exceed its prediction.
    """

    figure: str  # "latency.p50", "peak_memory", "size", "energy"
    terms: tuple[Term, ...]
    steps: tuple[tuple[Term, ...], ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    offset: float = 0.0
    margin: float = 0.0
    sums: tuple[Sum, ...] = ()  # that terms name

    def by_kind(self, candidate: Candidate) -> dict[str, float]:
        """Per kind of term the sum before it is weighted; of the steps, that of the largest one."""
        units = {group: len(units) for group, units in candidate.kept.items()}
        kept = units | {each.name: each.at(units) for each in self.sums}
        dropped = frozenset(candidate.dropped_blocks)

        def sums(terms: tuple[Term, ...]) -> dict[str, float]:
            found: dict[str, float] = {}
            for term in terms:
                found[term.kind] = found.get(term.kind, 0.0) + term.at(kept, dropped)
            return found

        whole = sums(self.terms)
        for kind, value in max((sums(step) for step in self.steps), key=self._weighted, default={}).items():
            whole[kind] = whole.get(kind, 0.0) + value
        return whole

    def predict(self, candidate: Candidate) -> float:
        """The figure, in its unit, without the margin."""
        return self.offset + self._weighted(self.by_kind(candidate))

    def _weighted(self, sums: Mapping[str, float]) -> float:
        return sum(self.weights.get(kind, 1.0) * value for kind, value in sums.items())


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """Everything that is predicted, by figure; a figure without a model cannot be planned for, only measured."""

    metrics: Mapping[str, MetricModel]

    def predict(self, candidate: Candidate) -> dict[str, float]:
        """All figures, each in its unit."""
        return {figure: metric.predict(candidate) for figure, metric in self.metrics.items()}
