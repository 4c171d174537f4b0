"""Sizes as functions of how many units each group keeps: linear for a dimension, polynomial for a product of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling
    from edgeprune.graph.groups import ChannelGroup
    from edgeprune.graph.labels import Axis, Labels

__all__ = ["Monomial", "Shape", "Size", "Sizes", "product"]

Monomial = tuple[str, ...]  # group names, sorted, repeated for a power; () is the constant


@dataclass(frozen=True, slots=True)
class Size:
    """A size, or a sum of products of sizes: coefficients of products of kept units.

    `terms` maps the groups of a product (none: the constant) to its coefficient; `units` are the dense units per
    group. Where not `exact`, the units of a group occupy unequal numbers of indices: their mean is used.
    """

    terms: tuple[tuple[Monomial, int | Fraction], ...] = ()
    units: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    exact: bool = True

    @classmethod
    def of(cls, terms: Mapping[Monomial, int | Fraction], units: Mapping[str, int], exact: bool = True) -> Size:
        return cls(tuple(sorted((key, value) for key, value in terms.items() if value)), units, exact)

    def at(self, kept: Mapping[str, int] = MappingProxyType({})) -> int:
        """The size at so many kept units per group; dense where not named. Rounded up where it is not exact."""
        total: int | Fraction = 0
        for groups, coefficient in self.terms:
            total += coefficient * prod(kept.get(group, self.units[group]) for group in groups)
        return -int(-total // 1)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that it depends on, sorted."""
        return tuple(sorted({group for groups, _ in self.terms for group in groups}))

    @property
    def constant(self) -> int | Fraction:
        return next((value for groups, value in self.terms if not groups), 0)

    def pieces(self) -> tuple[Size, ...]:
        """A sum of the same value: one size per set of groups that are multiplied with each other."""
        by_groups: dict[Monomial, dict[Monomial, int | Fraction]] = {}
        for groups, coefficient in self.terms:
            by_groups.setdefault(tuple(sorted(set(groups))), {})[groups] = coefficient
        return tuple(Size.of(terms, self.units, self.exact) for terms in by_groups.values())

    def __add__(self, other: Size | int) -> Size:
        if isinstance(other, int):
            other = Size.of({(): other}, self.units)
        terms = dict(self.terms)
        for groups, coefficient in other.terms:
            terms[groups] = terms.get(groups, 0) + coefficient
        return Size.of(terms, self.units or other.units, self.exact and other.exact)

    __radd__ = __add__

    def __mul__(self, other: Size | int) -> Size:
        if isinstance(other, int):
            return Size.of({groups: value * other for groups, value in self.terms}, self.units, self.exact)
        terms: dict[Monomial, int | Fraction] = {}
        for first, a in self.terms:
            for second, b in other.terms:
                groups = tuple(sorted((*first, *second)))
                terms[groups] = terms.get(groups, 0) + a * b
        return Size.of(terms, self.units or other.units, self.exact and other.exact)

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.terms == ((((), other),) if other else ())
        return isinstance(other, Size) and self.terms == other.terms and self.exact == other.exact

    def __hash__(self) -> int:
        return hash((self.terms, self.exact))


Shape = tuple[Size, ...]
_ONE = Size((((), 1),))


def product(sizes: Iterable[Size]) -> Size:
    """The product; 1 of none."""
    result = _ONE
    for size in sizes:
        result = result * size
    return result


@dataclass(slots=True)
class Sizes:
    """Turns the labels of a coupling into sizes."""

    coupling: Coupling
    names: tuple[str, ...]
    units: Mapping[str, int]
    group: NDArray[np.int64]  # of each component: its place in `names`, or -1
    _axes: dict[int, tuple[Axis, tuple[Size, ...]]] = field(default_factory=dict)
    _atoms: dict[bytes, Size] = field(default_factory=dict)
    _numbers: dict[int, Size] = field(default_factory=dict)

    @classmethod
    def of(cls, coupling: Coupling, groups: Iterable[ChannelGroup]) -> Sizes:
        groups = tuple(groups)
        number = np.full(int(coupling.component.max()) + 1, -1, np.int64)
        for i, group in enumerate(groups):
            member = group.members[0]
            axis = coupling.parameters[member.parameter].axis(member.dim)
            if axis is not None:
                number[coupling.component[axis.atoms[member.indices[:, 0]]]] = i
        units = MappingProxyType({group.name: group.units for group in groups})
        return cls(coupling, tuple(units), units, number)

    def number(self, value: int) -> Size:
        if value not in self._numbers:
            self._numbers[value] = Size.of({(): value}, self.units)
        return self._numbers[value]

    def shape(self, labels: Labels) -> Shape:
        """Of a labelled tensor, per dimension."""
        sizes = [self.number(size) for size in labels.shape]
        for axis in labels.axes:
            for dim, size in zip(axis.dims, self._of_axis(axis), strict=True):
                sizes[dim] = size
        return tuple(sizes)

    def _of_axis(self, axis: Axis) -> tuple[Size, ...]:
        known = self._axes.get(id(axis))
        if known is None:
            component = self.coupling.component[axis.atoms]
            component[self.group[component] < 0] = -1  # never removed, all alike
            sizes = []
            for i, size in enumerate(component.shape):
                # What is kept of a joint axis is a full block: the components vary along one dimension at most.
                along = component[tuple(slice(None) if j == i else 0 for j in range(component.ndim))]
                varies = not axis.is_joint or bool((along != along[0]).any())
                sizes.append(self._along(along) if varies else self.number(size))
            known = self._axes[id(axis)] = (axis, tuple(sizes))
        return known[1]

    def _along(self, component: NDArray[np.int64]) -> Size:
        key = component.tobytes()
        if key not in self._atoms:
            self._atoms[key] = self._counted(component)
        return self._atoms[key]

    def _counted(self, component: NDArray[np.int64]) -> Size:
        found, counts = np.unique(component[component >= 0], return_counts=True)
        terms: dict[Monomial, int | Fraction] = {(): int(np.count_nonzero(component < 0))}
        exact = True
        owner = self.group[found]
        for i in np.unique(owner):
            name = self.names[i]
            each = counts[owner == i]
            if len(each) == self.units[name] and (each == each[0]).all():
                terms[name,] = int(each[0])
            else:
                terms[name,] = Fraction(int(each.sum()), self.units[name])
                exact = False
        return Size.of(terms, self.units, exact)
