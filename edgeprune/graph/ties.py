"""Atoms, and what is known of them: which go together, which can never go, which must leave no holes."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from edgeprune.graph.labels import Atoms, Axis

__all__ = ["Ties"]


@dataclass(slots=True)
class Ties:
    """Collects ties; `connect` turns them into components, and those into what is frozen and why."""

    component: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))  # of each atom
    reasons: dict[int, str] = field(default_factory=dict)  # frozen component -> why
    _atoms: int = 1
    _ties: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    _freezes: list[tuple[Atoms, str]] = field(default_factory=list)
    _blocks: list[Axis] = field(default_factory=list)
    _free: list[tuple[int, int]] = field(default_factory=list)  # ranges of atoms, ascending

    def fresh(self, *shape: int) -> Atoms:
        """New atoms, in an array of the shape."""
        count = math.prod(shape)
        atoms = np.arange(self._atoms, self._atoms + count, dtype=np.int64)
        self._atoms += count
        return atoms if len(shape) == 1 else atoms.reshape(shape)

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
        if first.shape != second.shape:
            first, second = np.broadcast_arrays(first, second)
        a, b = first.ravel(), second.ravel()
        if a.all() and b.all():
            if first is not second:
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
        first = np.concatenate([a for a, _ in self._ties] or [np.zeros(0, np.int64)])
        second = np.concatenate([b for _, b in self._ties] or [np.zeros(0, np.int64)])
        edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(self._atoms, self._atoms))
        _, component = connected_components(edges, directed=False)
        self.component = component.astype(np.int64)
        self.reasons = {int(self.component[0]): "is not a parameter"}
        if self._freezes:
            frozen = self.component[np.concatenate([atoms for atoms, _ in self._freezes])]
            ends = np.cumsum([len(atoms) for atoms, _ in self._freezes])
            components, places = np.unique(frozen, return_index=True)
            for found, first_freeze in zip(components, np.searchsorted(ends, places, side="right"), strict=True):
                self.reasons.setdefault(int(found), self._freezes[first_freeze][1])

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
