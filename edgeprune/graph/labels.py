"""Labels: which atoms the indices of a tensor's dimensions stand for.

An *atom* is an integer id of one index of one parameter dimension; atom 0 is what can never be removed. Most
labelled dimensions stand alone (`Axis((1,), atoms)`). After a reshape has split a dimension, its atoms depend
on several dimensions at once; such a joint axis keeps the exact map, element by element, so that a later
reshape may merge it again without loss.

Neither axes nor labels are ever changed. They are not frozen because that makes them three times as slow to make, and
a walk over a network makes thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Atoms", "Axis", "Labels", "Left", "label_tensor", "read_off", "reshaped"]

Atoms = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Axis:
    """One independent set of atoms: `atoms` has one dimension for each of `dims` (ascending)."""

    dims: tuple[int, ...]
    atoms: Atoms

    @property
    def is_joint(self) -> bool:
        return len(self.dims) > 1

    def moved(self, dims: Sequence[int]) -> Axis:
        """The same atoms on other dimensions: `dims[i]` replaces `self.dims[i]`."""
        if len(dims) == 1:
            return self if tuple(dims) == self.dims else Axis(tuple(dims), self.atoms)
        order = np.argsort(dims)
        return Axis(tuple(dims[i] for i in order), self.atoms.transpose(order))

    def leading(self) -> int:
        """The dimension along which the atoms step furthest: the outer one of a split (heads)."""
        return self.dims[int(np.argmax(self._steps()))]

    def trailing(self) -> int:
        """The dimension along which the atoms step least: the inner one of a split (head size)."""
        return self.dims[int(np.argmin(self._steps()))]

    def _steps(self) -> list[int]:
        # The largest step: within each dimension the atoms may be repeated, or in any order.
        return [int(np.abs(np.diff(self.atoms, axis=i)).max()) for i in range(len(self.dims))]


@dataclass(slots=True, eq=False)
class Labels:
    """The labels of one tensor: its concrete shape, and the axes; a dimension that is in no axis is fixed."""

    shape: tuple[int, ...]
    axes: tuple[Axis, ...] = ()

    def axis(self, dim: int) -> Axis | None:
        """The axis that the dimension (negative ones count from the end) belongs to."""
        dim %= len(self.shape) or 1
        for axis in self.axes:
            if dim in axis.dims:
                return axis
        return None

    def kept_shape(self, keep: NDArray[np.bool_]) -> tuple[int, ...]:
        """The shape that is left when the atoms with `keep[atom] == False` are removed."""
        return Left(keep).shape(self)


class Left:
    """What is left where `keep` is False for some atoms; `alike` numbers atoms of which the same indices are left."""

    def __init__(self, keep: NDArray[np.bool_], alike: Callable[[Atoms], int] = id) -> None:
        self._keep = keep
        self._alike = alike
        # Numbers may be identities: the atoms are held.
        self._known: dict[int, tuple[Atoms, list[torch.Tensor], list[int]]] = {}

    def indices(self, axis: Axis, place: int = 0) -> torch.Tensor:
        """Those that are left of a dimension of the axis (of its own first one, or another): int64, ascending."""
        return self._looked_at(axis)[1][place]

    def shape(self, labels: Labels) -> tuple[int, ...]:
        """As `Labels.kept_shape`."""
        shape = list(labels.shape)
        for axis in labels.axes:
            for dim, size in zip(axis.dims, self._looked_at(axis)[2], strict=True):
                shape[dim] = size
        return tuple(shape)

    def _looked_at(self, axis: Axis) -> tuple[Atoms, list[torch.Tensor], list[int]]:
        number = self._alike(axis.atoms)
        known = self._known.get(number)
        if known is None:
            kept = [mask.nonzero()[0] for mask in kept_per_dim(axis, self._keep)]
            known = axis.atoms, [torch.from_numpy(indices) for indices in kept], [len(indices) for indices in kept]
            self._known[number] = known
        return known


def kept_per_dim(axis: Axis, keep: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Per dimension of the axis, which of its indices are left; raises ValueError where a hole would remain."""
    mask = keep[axis.atoms]
    if not axis.is_joint:
        return [mask]
    kept = [np.asarray(mask.any(axis=tuple(j for j in range(mask.ndim) if j != i))) for i in range(mask.ndim)]
    if int(mask.sum()) != int(np.prod([k.sum() for k in kept])):
        raise ValueError(f"the kept atoms of dimensions {axis.dims} do not form a block")
    return kept


def label_tensor(axis: Axis, shape: tuple[int, ...]) -> torch.Tensor:
    """An int64 tensor of the shape whose elements are the axis's atoms (expanded, without copies)."""
    view = [1] * len(shape)
    for dim in axis.dims:
        view[dim] = shape[dim]
    return torch.from_numpy(np.ascontiguousarray(axis.atoms)).reshape(view).expand(shape)


def read_off(labels: torch.Tensor) -> tuple[Axis | None, int]:
    """The axis that a label tensor shows: where it varies; None and its atom where it is constant."""
    array = labels.numpy()
    if not array.size:
        return None, 0
    array = array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]
    dims: list[int] = []
    for dim, size in enumerate(array.shape):
        if size == 1:
            continue
        first = array[(slice(None),) * dim + (slice(0, 1),)]
        if (array != first).any():
            dims.append(dim)
        else:
            array = first
    if not dims:
        return None, int(array.flat[0])
    return Axis(tuple(dims), np.ascontiguousarray(array.reshape([array.shape[d] for d in dims]))), 0


def reshaped(axis: Axis, before: Sequence[int], after: Sequence[int]) -> torch.Tensor:
    """The label tensor of the axis after a reshape. Dimensions that the axis has nothing to do with have size 1."""
    source, target = [1] * len(before), [1] * len(after)
    for old, new in _blocks(before, after):
        if set(old) & set(axis.dims):
            for dim in old:
                source[dim] = before[dim]
            for dim in new:
                target[dim] = after[dim]
    return label_tensor(axis, tuple(source)).reshape(target)


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of dimensions that a reshape turns into one another."""
    blocks: list[tuple[list[int], list[int]]] = []
    old: list[int] = []
    new: list[int] = []
    i = j = 0
    left = right = 1
    while i < len(before) or j < len(after):
        if i < len(before) and (left <= right or j == len(after)):
            left *= before[i]
            old.append(i)
            i += 1
        else:
            right *= after[j]
            new.append(j)
            j += 1
        if left == right and old and new:
            blocks.append((old, new))
            old, new, left, right = [], [], 1, 1
    if old or new:  # dimensions of size 1 at the end
        blocks.append((old, new))
    return blocks
