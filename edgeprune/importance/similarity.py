"""Importance from how alike the units are: the geometric median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph.groups import ChannelGroup
from edgeprune.importance.base import ImportanceContext, Scores, arrays, tensors
from edgeprune.importance.reduction import MemberReduction, Place
from edgeprune.training_data import one_thread

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GeometricMedian"]

_BLOCK = 1 << 22  # distances that are in memory at once: 32 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricMedian(MemberReduction):
    """Sum of the distances from a unit's weights to those of all other units (FPGM, He et al. 2019).

    arXiv:1811.00250: a unit near the geometric median of its layer can be replaced by the others,
    so the least sum goes first. Needs all n² distances of a group's n units: a matrix product, block by block, in
    float64 (distances below about 1e-8 of the weights' norm are round-off).
    """

    needs_data = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:  # noqa: ARG002
        weights = tensors(module)
        places = self.places(module, groups, weights)
        values = arrays(weights, (m.parameter for found in places.values() for place in found for m in place))
        scores: Scores = {}
        with one_thread():
            for group in groups:
                sums = [_distances(_rows(values, place)) for place in places[group.name]]
                scores[group.name] = self.join(group, places[group.name], sums, weights)
        return scores


def _rows(values: dict[str, NDArray[np.floating]], place: Place) -> NDArray[np.float64]:
    """One row per unit with all its elements."""
    parts = []
    for member in place:
        moved = np.moveaxis(values[member.parameter], member.dim, 0)
        parts.append(moved[member.indices].reshape(len(member.indices), -1).astype(np.float64))
    return np.concatenate(parts, axis=1)


def _distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per row the sum of the Euclidean distances to all rows."""
    import torch

    x = torch.from_numpy(rows)
    x = x - x.mean(dim=0)  # distances are the same, and the products smaller
    squares = (x * x).sum(dim=1)
    step = max(_BLOCK // max(len(x), 1), 1)
    sums = []
    for start in range(0, len(x), step):
        block = x[start : start + step]
        apart = squares[start : start + step, None] + squares - 2 * (block @ x.T)
        sums.append(apart.clamp_(min=0).sqrt_().sum(dim=1))
    total: NDArray[np.float64] = torch.cat(sums).numpy()
    return total
