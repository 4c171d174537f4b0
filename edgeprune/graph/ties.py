"""Atoms, and what is known of them: which go together, which can never go, which must leave no holes."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph.labels import Atoms, Axis

__all__ = ["Ties"]


@dataclass(slots=True)
class Ties:
    """Collects ties; `connect` turns them into components, and those into what is frozen and why."""

    component: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))  # of each atom
    reasons: dict[int, str] = field(default_factory=dict)  # frozen component -> why
    _atoms: int = 1
    _ranges: dict[int, tuple[Atoms, int]] = field(default_factory=dict)  # by identity: fresh atoms, the first of them
    _alike: list[tuple[int, int, int]] = field(default_factory=list)  # first atoms of two such ranges, and how many
    _whole: dict[int, int] = field(default_factory=dict)  # the first atom of such a range -> that of an earlier one
    _ties: list[tuple[Atoms, Atoms]] = field(default_factory=list)  # of any other atoms
    _freezes: list[tuple[Atoms, str]] = field(default_factory=list)
    _blocks: list[Axis] = field(default_factory=list)
    _free: list[tuple[int, int]] = field(default_factory=list)  # ranges of atoms, ascending

    def fresh(self, *shape: int) -> Atoms:
        """New atoms, in an array of the shape."""
        first = self._atoms
        self._atoms += math.prod(shape)
        atoms = np.arange(first, self._atoms, dtype=np.int64)
        if len(shape) != 1:
            atoms = atoms.reshape(shape)
        if atoms.size:  # an empty one begins where the next begins
            self._ranges[id(atoms)] = atoms, first
        return atoms

    def free(self, *shape: int) -> Atoms:
        """New atoms of indices that are all alike (an expanded or filled dimension): any of them may go."""
        first = self._atoms
        atoms = self.fresh(*shape)
        self._free.append((first, self._atoms))
        return atoms

    def is_free(self, axis: Axis) -> bool:
        """Whether the axis has only such atoms."""
        atom = int(axis.atoms.flat[0])
        found = bisect_right(self._free, (atom, self._atoms)) - 1
        return found >= 0 and self._free[found][0] <= atom < self._free[found][1]

    def tie(self, first: Atoms, second: Atoms) -> None:
        """Index by index (shapes broadcast), two atoms can only go together."""
        if first is second:
            return
        ranges = self._ranges.get(id(first)), self._ranges.get(id(second))
        if ranges[0] and ranges[1] and first.shape == second.shape:  # most are: not looked at atom by atom
            self._alike.append((ranges[0][1], ranges[1][1], first.size))
            return
        if first.shape != second.shape:
            first, second = np.broadcast_arrays(first, second)
        a, b = first.ravel(), second.ravel()
        if a.all() and b.all():
            self._ties.append((a, b))
            return
        fixed = (a == 0) != (b == 0)
        if fixed.any():
            self.freeze((a + b)[fixed], "is tied to a fixed dimension")
        both = (a != 0) & (b != 0)
        if both.any():
            self._ties.append((a[both], b[both]))

    def freeze(self, atoms: Atoms, why: str) -> None:
        """These atoms can never go."""
        if atoms.size:
            self._freezes.append((atoms.ravel(), why))

    def block(self, axis: Axis) -> None:
        """What is kept of a joint axis must remain a full block, without holes."""
        if axis.is_joint:
            self._blocks.append(axis)

    def connect(self) -> None:
        """Find the components, and why some of them can never go."""
        while True:
            self._components()
            frozen = np.zeros(int(self.component.max()) + 1, np.bool_)
            frozen[list(self.reasons)] = True
            incomplete = sum(self._keep_block(axis, frozen) for axis in self._blocks)
            if not incomplete:
                return

    def _components(self) -> None:
        component = self._united()
        if self._ties:
            first, second = (component[np.concatenate(ends)] for ends in zip(*self._ties, strict=True))
            component = _joined(int(component.max()) + 1, first, second)[component]
        self.component = component
        self.reasons = {int(self.component[0]): "is not a parameter"}
        if self._freezes:
            frozen = self.component[np.concatenate([atoms for atoms, _ in self._freezes])]
            ends = np.cumsum([len(atoms) for atoms, _ in self._freezes])
            components, places = np.unique(frozen, return_index=True)
            for found, first_freeze in zip(components, np.searchsorted(ends, places, side="right"), strict=True):
                self.reasons.setdefault(int(found), self._freezes[first_freeze][1])

    def _united(self) -> NDArray[np.int64]:
        """The components that whole ranges make, numbered in the order of their first atoms."""
        self._whole.clear()
        sizes: dict[int, int] = {}
        for one, other, size in self._alike:
            first, second = sorted((self._earliest(one), self._earliest(other)))
            if first != second:
                self._whole[second], sizes[second] = first, size
        earliest = np.arange(self._atoms)
        for atom, size in sizes.items():
            first = self._earliest(atom)
            earliest[atom : atom + size] = earliest[first : first + size]  # which nothing comes before
        return _numbered(earliest)

    def _earliest(self, atom: int) -> int:
        while (above := self._whole.get(atom)) is not None:
            self._whole[atom] = atom = self._whole.get(above, above)
        return atom

    def alike(self, atoms: Atoms) -> int:
        """The same number for `fresh` atoms that were tied to one another, all of them and index by index."""
        known = self._ranges.get(id(atoms))
        return -id(atoms) if known is None else self._earliest(known[1])

    def _keep_block(self, axis: Axis, frozen: NDArray[np.bool_]) -> bool:
        """Tie what must go together for want of a full block; whether there was anything."""
        component = self.component[axis.atoms]
        component[frozen[component]] = int(self.component[0])
        varying = [i for i in range(component.ndim) if (component != component.take([0], axis=i)).any()]
        if len(varying) <= 1:
            return False
        # Not separated by any operator: the same positions in every block (grouped convolution, channel shuffle).
        inner = axis.dims.index(axis.trailing())
        keep = inner if inner in varying else varying[-1]
        index = tuple(slice(None) if i == keep else slice(0, 1) for i in range(component.ndim))
        self.tie(axis.atoms[index], axis.atoms)
        return True


def _joined(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The components of `count` nodes whose edges are (`first`, `second`), numbered in the order of first nodes."""
    earliest = np.arange(count)  # of each node one that it is connected with, which in the end nothing comes before
    while True:
        one, other = earliest[first], earliest[second]
        apart = one != other
        if not apart.any():
            return _numbered(earliest)
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        np.minimum.at(earliest, np.maximum(one, other), np.minimum(one, other))
        while ((above := earliest[earliest]) != earliest).any():
            earliest = above


def _numbered(earliest: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2 ... in the order of those that are their own earliest; the others have the number of theirs."""
    return (np.cumsum(earliest == np.arange(len(earliest))) - 1)[earliest]
