"""The mixed-integer programme of a problem: variables, rows, and linear expressions over them.

One-hot `x` per group, `keep` per block; the product of two one-hots is linearised exactly by z with
sum_l z_kl = x_gk and sum_k z_kl = x_hl (Sherali and Adams 1990), which are integral wherever x is. Where a block gates
a term, z sums to `keep`. The widths of a group that lives inside of a block sum to its `keep`, too, so that its
losses and costs vanish with the block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeprune.search.costs import MetricModel, Sum, Term
from edgeprune.search.options import Options
from edgeprune.search.problem import Choice, Problem, losses

__all__ = ["Linear", "Programme"]

Columns = NDArray[np.int64]
Values = NDArray[np.float64]
Gate = frozenset[str]  # blocks that must all be kept


@dataclass(slots=True)
class Linear:
    """A constant and coefficients of columns; a column may come several times."""

    constant: float = 0.0
    columns: list[Columns] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)

    def add(self, columns: Columns | Sequence[int], values: Values | Sequence[float], factor: float = 1.0) -> None:
        """Add `factor` times the values at the columns."""
        self.columns.append(np.asarray(columns, dtype=np.int64).ravel())
        self.values.append(factor * np.asarray(values, dtype=np.float64).ravel())

    def plus(self, other: Linear) -> Linear:
        """The sum."""
        return Linear(self.constant + other.constant, self.columns + other.columns, self.values + other.values)

    def dense(self, size: int) -> Values:
        """All coefficients."""
        whole = np.zeros(size)
        for columns, values in zip(self.columns, self.values, strict=True):
            np.add.at(whole, columns, values)
        return whole


class Programme:
    """Variables and rows, as they are asked for. All rows are `low <= sum <= high`."""

    def __init__(self, problem: Problem, options: Options) -> None:
        """The groups' and blocks' variables; those of products come with the expressions that need them."""
        self.problem = problem
        self.options = options
        self.integral: list[bool] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self._entries: list[tuple[Columns, Columns, Values]] = []
        self._products: dict[tuple[Gate, tuple[str, ...]], Columns] = {}
        self._gates: dict[Gate, int] = {}
        self._keep = {block.name: self.variable(integral=True) for block in problem.space.blocks}
        self._inside = self._homes()
        self.x = {
            group.name: self.variables(len(options.kept[group.name]), integral=True) for group in problem.space.groups
        }
        for name, columns in self.x.items():
            self._sums_to(columns, self._inside[name])
        self._pin_dense()
        for total in options.sums.values():
            self._inside[total.name] = self._inside[total.parts[0][0]]
            self.x[total.name] = self._added(total)

    def variable(self, *, integral: bool = False, low: float = 0.0, upper: float = 1.0) -> int:
        """A new column, from `low` to `upper`."""
        self.integral.append(integral)
        self.lower.append(low)
        self.upper.append(upper)
        return len(self.upper) - 1

    def variables(self, count: int, *, integral: bool = False) -> Columns:
        """New columns, from 0 to 1."""
        first = len(self.upper)
        self.integral.extend([integral] * count)
        self.lower.extend([0.0] * count)
        self.upper.extend([1.0] * count)
        return np.arange(first, first + count, dtype=np.int64)

    def row(self, columns: Columns, values: Values, low: float, high: float) -> None:
        """A new row."""
        self._entries.append((np.full(columns.size, len(self.low), dtype=np.int64), columns, values))
        self.low.append(low)
        self.high.append(high)

    def entries(self) -> tuple[Columns, Columns, Values]:
        """Row, column and value of each coefficient; those of the same place add up."""
        rows, columns, values = zip(*self._entries, strict=True)
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)

    def loss(self) -> Linear:
        """The predicted loss of accuracy."""
        whole = Linear()
        for group in self.problem.space.groups:
            whole.add(self.x[group.name], np.asarray(losses(group))[self.options.kept[group.name]])
        for block in self.problem.space.blocks:
            whole.constant += block.loss
            whole.add([self._keep[block.name]], [-block.loss])
        return whole

    def parts(self, metric: MetricModel) -> tuple[Linear, tuple[Linear, ...]]:
        """What every step of a figure has in common, and each step's own; a figure is the largest of the sums."""
        whole = self._sum(metric, metric.terms)
        whole.constant += metric.offset
        return whole, tuple(self._sum(metric, step) for step in metric.steps) or (Linear(),)

    def differ(self, choice: Choice, distance: int) -> None:
        """Exclude what differs from the choice in fewer than `distance` groups and blocks."""
        same, low = Linear(), 0
        for name, width in choice.widths.items():
            place = self.options.place(name, width)
            low += 1
            if place is not None:
                same.add([self.x[name][place]], [1.0])
        for name, keep in self._keep.items():
            gone = name in choice.dropped
            same.constant += gone
            same.add([keep], [-1.0 if gone else 1.0])
            low += 1
        self._at_most(same, low - distance)

    def narrower(self, choice: Choice) -> None:
        """Exclude what is nowhere narrower than the choice."""
        less = Linear()
        for name, width in choice.widths.items():
            for column, option in zip(self.x[name], self.options.widths(name), strict=True):
                if option < width:
                    less.add([column], [-1.0])
        for name, keep in self._keep.items():
            if name not in choice.dropped:
                less.constant -= 1.0
                less.add([keep], [1.0])
        self._at_most(less, -1.0)

    def chosen(self, solution: Values) -> Choice:
        """What the values of the columns say."""
        dropped = frozenset(name for name, column in self._keep.items() if solution[column] < 0.5)
        gone = {group for block in self.problem.space.blocks if block.name in dropped for group in block.groups}
        widths = {
            name: self.options.widths(name)[int(np.argmax(solution[self.x[name]]))]
            for name in self.options.groups
            if name not in gone
        }
        return Choice(widths, dropped)

    def _at_most(self, expression: Linear, high: float) -> None:
        columns = np.concatenate(expression.columns) if expression.columns else np.zeros(0, dtype=np.int64)
        values = np.concatenate(expression.values) if expression.values else np.zeros(0)
        self.row(columns, values, -np.inf, high - expression.constant)

    def _homes(self) -> dict[str, Gate]:
        """Per group the blocks without which nothing of it is left: all it is in, and that gate all its terms."""
        inside: dict[str, set[str]] = {group.name: set() for group in self.problem.space.groups}
        for block in self.problem.space.blocks:
            for name in block.groups:
                if name in inside:
                    inside[name].add(block.name)
        sums = self.options.sums
        for term in self.options.terms:
            for name in term.groups:
                for group in [part[0] for part in sums[name].parts] if name in sums else [name]:
                    inside[group] &= set(term.blocks)
        for _ in sums:  # groups that add up are gone together, or not at all; sums may share some
            for total in sums.values():
                common = set.intersection(*(inside[group] for group, _, _ in total.parts))
                for group, _, _ in total.parts:
                    inside[group] = common.copy()
        return {name: frozenset(blocks) for name, blocks in inside.items()}

    def _added(self, total: Sum) -> Columns:
        """The one-hot of a sum, from those of its groups: integral wherever they are."""
        columns, values = np.zeros(0, dtype=np.int64), np.asarray([total.constant])
        for group, each, _ in total.parts:
            theirs, more = self.x[group], each * np.asarray(self.options.widths(group))
            if not columns.size:
                columns, values = theirs, values + more
                continue
            z = self.variables(columns.size * theirs.size).reshape(columns.size, theirs.size)
            for axis, whole in enumerate((columns, theirs)):
                for line, column in zip(np.moveaxis(z, axis, 0), whole, strict=True):
                    self.row(np.append(line, column), np.append(np.ones(line.size), -1.0), 0.0, 0.0)
            sums = values[:, None] + more[None, :]
            values = np.unique(sums)
            columns = self.variables(values.size)
            for column, value in zip(columns, values, strict=True):
                line = z[sums == value]
                self.row(np.append(line, column), np.append(np.ones(line.size), -1.0), 0.0, 0.0)
        return columns

    def _pin_dense(self) -> None:
        """A group in a dropped block is left at its full width, where it is not gone with the block."""
        for block in self.problem.space.blocks:
            for name in block.groups:
                if name in self.x and block.name not in self._inside[name]:
                    columns = np.asarray([self.x[name][-1], self._keep[block.name]], dtype=np.int64)
                    self.row(columns, np.ones(2), 1.0, np.inf)

    def _gate(self, blocks: Gate) -> int:
        """The column that is 1 where all the blocks (at least one) are kept."""
        if len(blocks) == 1:
            return self._keep[next(iter(blocks))]
        if blocks not in self._gates:
            column = self._gates[blocks] = self.variable()
            keeps = [self._keep[name] for name in sorted(blocks)]
            for keep in keeps:
                self.row(np.asarray([column, keep]), np.asarray([1.0, -1.0]), -np.inf, 0.0)
            ones = np.asarray([1.0] + [-1.0] * len(keeps))
            self.row(np.asarray([column, *keeps]), ones, 1.0 - len(keeps), np.inf)
        return self._gates[blocks]

    def _sums_to(self, columns: Columns, gate: Gate) -> None:
        if gate:
            values = np.append(np.ones(columns.size), -1.0)
            self.row(np.append(columns, self._gate(gate)), values, 0.0, 0.0)
        else:
            self.row(columns, np.ones(columns.size), 1.0, 1.0)

    def _sum(self, metric: MetricModel, terms: Iterable[Term]) -> Linear:
        """The weighted sum of terms; those over the same groups and blocks share their columns."""
        whole = Linear()
        tables: dict[tuple[Gate, tuple[str, ...]], Values] = defaultdict(lambda: np.zeros(()))
        for term in terms:
            groups, table = self.options.table(term)
            key = (frozenset(term.blocks), groups)
            tables[key] = tables[key] + metric.weights.get(term.kind, 1.0) * table
        for (gate, groups), table in tables.items():
            if not groups and not gate:
                whole.constant += float(table)
            elif not groups:
                whole.add([self._gate(gate)], [float(table)])
            elif len(groups) == 1 and gate == self._inside[groups[0]]:
                whole.add(self.x[groups[0]], table)
            else:
                whole.add(self._product(gate, groups), table)
        return whole

    def _product(self, gate: Gate, groups: tuple[str, ...]) -> Columns:
        """The columns of a gated one-hot, or of the (gated) product of two, in the shape of their table."""
        key = (gate, groups)
        if key in self._products:
            return self._products[key]
        shape = tuple(self.x[name].size for name in groups)
        z = self._products[key] = self.variables(int(np.prod(shape))).reshape(shape)
        for axis, name in enumerate(groups):
            whole = gate == self._inside[name]
            for line, column in zip(np.moveaxis(z, axis, 0).reshape(shape[axis], -1), self.x[name], strict=True):
                values = np.append(np.ones(line.size), -1.0)
                self.row(np.append(line, column), values, 0.0 if whole else -np.inf, 0.0)
        if all(gate != self._inside[name] for name in groups):
            self._sums_to(z.ravel(), gate)
        return z
