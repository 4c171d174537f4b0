"""Importance from the weights alone: L1, L2, batch-norm scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.importance.base import ImportanceContext, Scores, normalised, producers, tensors, unit_sums

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["L1", "L2", "BatchNormScale"]


class L1:
    """Sum of absolute weights of each unit (Li et al. 2017, arXiv:1608.08710).

    Mean over the weights that produce the unit (see `producers`), divided by the mean over the group.
    """

    needs_gradients = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:  # noqa: ARG002
        weights = tensors(module)
        return {group.name: normalised(_mean_norm(group, producers(group, weights), weights, 1)) for group in groups}


class L2:
    """Euclidean norm of the weights of each unit; reduction and normalisation as for L1."""

    needs_gradients = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:  # noqa: ARG002
        weights = tensors(module)
        return {group.name: normalised(_mean_norm(group, producers(group, weights), weights, 2)) for group in groups}


class BatchNormScale:
    """Absolute scale of the normalisations that act on each unit (network slimming, Liu et al. 2017, arXiv:1708.06519).

    Mean over the group's normalisations (batch, layer, group normalisation: whatever has a weight per channel),
    divided by the mean over the group. A group without any is scored by L2, and the context's progress says so.
    """

    needs_gradients = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        from edgeprune.graph.normalisation import normalisations

        weights = tensors(module)
        scales = {normalisation.weight for normalisation in normalisations(module)}
        scores: Scores = {}
        without: list[str] = []
        for group in groups:
            members = tuple(m for m in group.members if m.parameter in scales)
            if members:
                scores[group.name] = normalised(_mean_norm(group, members, weights, 1))
            else:
                without.append(group.name)
                scores[group.name] = normalised(_mean_norm(group, producers(group, weights), weights, 2))
        if without:
            names = ", ".join(without[:3]) + (", …" if len(without) > 3 else "")
            context.progress.say(
                f"bn_scale: {len(without)} of {len(groups)} groups have no normalisation and are scored by l2: {names}"
            )
        return scores


def _mean_norm(
    group: ChannelGroup, members: Sequence[Member], weights: Mapping[str, torch.Tensor], order: int
) -> NDArray[np.float64]:
    """Mean over the members of the L1 or L2 norm of each unit's elements; (units,)."""
    total = np.zeros(group.units)
    for member in members:
        values = weights[member.parameter].detach().cpu().double().numpy()
        total += unit_sums(np.abs(values), member) if order == 1 else np.sqrt(unit_sums(values * values, member))
    return total / max(len(members), 1)
