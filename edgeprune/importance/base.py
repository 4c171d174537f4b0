"""A score per unit: the seam of importances, what they have in common, and the random one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import UsageError
from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.training_data import ImportanceContext

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Importance", "ImportanceContext", "Random", "Scores", "normalised", "producers", "tensors", "unit_sums"]

Scores = dict[str, NDArray[np.float64]]


@runtime_checkable
class Importance(Protocol):
    """Scores units. The same module, groups, data and seed give the same scores, bit for bit."""

    needs_gradients: bool  # True: needs `batches` and `loss` of the context

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        """Per group name an array of shape (units,); higher is kept longer. Leaves the module as it was."""


class Random:
    """Uniform in [0, 1), drawn for each group from (seed, group name): the order of the groups does not matter."""

    needs_gradients = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:  # noqa: ARG002
        scores: Scores = {}
        for group in groups:
            digest = hashlib.sha256(f"{context.seed}/{group.name}".encode()).digest()
            scores[group.name] = np.random.default_rng(int.from_bytes(digest, "big")).random(group.units)
        return scores


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers by every dotted name that they have (shared ones have several)."""
    return {
        **dict(module.named_buffers(remove_duplicate=False)),
        **dict(module.named_parameters(remove_duplicate=False)),
    }


def producers(group: ChannelGroup, shapes: Mapping[str, torch.Tensor]) -> tuple[Member, ...]:
    """The members that compute the units: the producers' weights (two dimensions and more, so no biases).

    A group without any falls back, in this order, to its one-dimensional producers, its affine members of two
    dimensions and more (depthwise filters), its consumers, and at last to whatever members it has: every group
    can be scored.
    """
    for member in group.members:
        if member.parameter not in shapes:
            raise UsageError(f"group {group.name!r} names {member.parameter!r}, which the module does not have")
    weights = [m for m in group.members if shapes[m.parameter].ndim >= 2]
    choices = (
        [m for m in weights if m.role == "producer"],
        [m for m in group.members if m.role == "producer"],
        [m for m in weights if m.role == "affine"],
        [m for m in weights if m.role == "consumer"],
        list(group.members),
    )
    return tuple(next((choice for choice in choices if choice), ()))


def unit_sums(values: NDArray[np.float64], member: Member) -> NDArray[np.float64]:
    """Sum of `values` (the shape of the member's tensor) over all elements that belong to each unit; (units,).

    NumPy sums in one thread in a fixed order, so the result does not depend on the number of threads.
    """
    others = tuple(axis for axis in range(values.ndim) if axis != member.dim)
    per_index = values.sum(axis=others)
    total: NDArray[np.float64] = per_index[member.indices].sum(axis=1)
    return total


def normalised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide by the mean over the group's units, so that groups of unlike scale compare; all zero stays all zero."""
    mean = scores.mean() if scores.size else 0.0
    return scores / mean if mean > 0 else scores
