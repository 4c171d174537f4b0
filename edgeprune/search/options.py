"""The widths that a solver need consider: an option that another one beats in everything is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.search.base import GroupSpace
from edgeprune.search.costs import MetricModel, Sum, Term
from edgeprune.search.problem import Problem, losses

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """Per group the indices of the widths that are left, ascending; and the terms that count in the problem."""

    groups: Mapping[str, GroupSpace]
    kept: Mapping[str, NDArray[np.int64]]
    terms: tuple[Term, ...]
    sums: Mapping[str, Sum]

    @classmethod
    def of(cls, problem: Problem) -> Options:
        """All widths but the dominated ones."""
        groups = {group.name: group for group in problem.space.groups}
        used = {*problem.limits, *problem.caps, problem.minimise}
        metrics = [metric for figure, metric in problem.metrics.items() if figure in used]
        terms = [(term, metric) for metric in metrics for term in _all_terms(metric)]
        slices: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
        for term, metric in terms:
            if metric.weights.get(term.kind, 1.0) > 0:
                for axis, name in enumerate(term.groups):
                    if name in groups:
                        rows = np.moveaxis(term.table, axis, 0)
                        slices[name].append(rows.reshape(rows.shape[0], -1))
        named = {name for term, _ in terms for name in term.groups}
        sums = {each.name: each for metric in metrics for each in metric.sums if each.name in named}
        added = {group for each in sums.values() for group, _, _ in each.parts}  # what they cost is not in `slices`
        inner = {name for block in problem.space.blocks for name in block.groups}
        kept = {
            name: np.arange(len(group.widths)) if name in added else _undominated(group, slices[name], name in inner)
            for name, group in groups.items()
        }
        return cls(groups, kept, tuple(term for term, _ in terms), sums)

    def widths(self, name: str) -> tuple[int, ...]:
        """The widths that are left of a group, or that a sum can still have."""
        if name in self.sums:
            parts = self.sums[name].parts
            return self.sums[name].reachable({group: self.widths(group) for group, _, _ in parts})
        return tuple(self.groups[name].widths[index] for index in self.kept[name])

    def place(self, name: str, width: int) -> int | None:
        """Where the width stands among those left; None where it is left out."""
        widths = self.widths(name)
        return widths.index(width) if width in widths else None

    def table(self, term: Term) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """The groups of a term, sorted and each once, and its table over the options that are left."""
        table = term.table
        for axis, (name, widths) in enumerate(zip(term.groups, term.widths, strict=True)):
            wanted = [widths.index(width) for width in self.widths(name)]
            table = np.take(table, wanted, axis=axis)
        if len(term.groups) == 2 and term.groups[0] == term.groups[1]:
            return term.groups[:1], np.diagonal(table)
        if tuple(sorted(term.groups)) != term.groups:
            return tuple(sorted(term.groups)), table.T
        return term.groups, table


def _all_terms(metric: MetricModel) -> tuple[Term, ...]:
    return (*metric.terms, *(term for step in metric.steps for term in step))


def _undominated(group: GroupSpace, slices: list[NDArray[np.float64]], inner: bool) -> NDArray[np.int64]:
    """Widths that no other width is as cheap as everywhere, and loses no more; of equals the wider stays."""
    count = len(group.widths)
    costs = np.concatenate([np.asarray(losses(group))[:, None], *slices], axis=1)
    left = []
    for index in range(count):
        beaten = np.all(costs <= costs[index], axis=1)
        better = np.any(costs < costs[index], axis=1) | (np.arange(count) > index)
        beaten &= better
        beaten[index] = False
        if not beaten.any() or (inner and index == count - 1):  # what is left of a dropped block counts as dense
            left.append(index)
    return np.asarray(left, dtype=np.int64)
