"""Labels: which atoms the indices of a tensor's dimensions stand for.

An *atom* is an integer id of one index of one parameter dimension; atom 0 is what can never be removed. Most
labelled dimensions stand alone (`Axis((1,), atoms)`). After a reshape has split a dimension, its atoms depend
on several dimensions at once; such a joint axis keeps the exact map, element by element, so that a later
reshape may merge it again without loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Atoms", "Axis", "Labels", "label_tensor", "read_off"]

Atoms = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """One independent set of atoms: `atoms` has one dimension for each of `dims` (ascending)."""

    dims: tuple[int, ...]
    atoms: Atoms

    @property
    def is_joint(self) -> bool:
        return len(self.dims) > 1

    def moved(self, dims: Sequence[int]) -> Axis:
        """The same atoms on other dimensions: `dims[i]` replaces `self.dims[i]`."""
        order = np.argsort(dims)
        return Axis(tuple(dims[i] for i in order), self.atoms.transpose(order))

    def leading(self) -> int:
        """The dimension along which the atoms step furthest: the outer one of a split (heads)."""
        return self.dims[int(np.argmax(self._steps()))]

    def trailing(self) -> int:
        """The dimension along which the atoms step least: the inner one of a split (head size)."""
        return self.dims[int(np.argmin(self._steps()))]

    def _steps(self) -> list[float]:
        return [float(np.abs(np.diff(self.atoms, axis=i)).mean()) for i in range(len(self.dims))]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of one tensor: its concrete shape, and the axes; a dimension that is in no axis is fixed."""

    shape: tuple[int, ...]
    axes: tuple[Axis, ...] = ()

    def axis(self, dim: int) -> Axis | None:
        """The axis that the dimension (negative ones count from the end) belongs to."""
        dim %= max(len(self.shape), 1)
        return next((axis for axis in self.axes if dim in axis.dims), None)

    def kept_shape(self, keep: NDArray[np.bool_]) -> tuple[int, ...]:
        """The shape that is left when the atoms with `keep[atom] == False` are removed."""
        shape = list(self.shape)
        for axis in self.axes:
            for dim, kept in zip(axis.dims, kept_per_dim(axis, keep), strict=True):
                shape[dim] = int(kept.sum())
        return tuple(shape)


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
    dims: list[int] = []
    for dim in range(array.ndim):
        if array.shape[dim] == 1 or array.strides[dim] == 0:
            continue
        first = np.take(array, [0], axis=dim)
        if (array != first).any():
            dims.append(dim)
        else:
            array = first
    if not dims:
        return None, int(array.flat[0]) if array.size else 0
    index = tuple(slice(None) if dim in dims else 0 for dim in range(array.ndim))
    return Axis(tuple(dims), np.ascontiguousarray(array[index])), 0
