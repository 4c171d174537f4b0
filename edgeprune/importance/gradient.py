"""Importance from the gradients of the loss: first-order Taylor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import TaskError
from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.importance.base import ImportanceContext, Scores, normalised, producers, tensors, unit_sums
from edgeprune.training_data import LossFn, reproducible, scalar_loss

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Taylor"]


class Taylor:
    """How much the loss changes to first order when a unit is removed: |Σ weight · gradient| (Molchanov et al. 2019).

    arXiv:1906.10771, "Taylor-FO": the sum runs over a unit's elements of one member, its magnitude is averaged over
    the batches, then over the members, and divided by the mean over the group. The members are the group's
    normalisations (weight and bias, as the paper advises), or else the weights that produce the unit (`producers`).
    The module runs in eval mode. With another number of threads the scores agree to float32 round-off only.
    Raises TaskError where the task has no `train_batches` and `loss`.
    """

    needs_gradients = True

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        if context.batches is None or context.loss is None:
            raise TaskError(
                "importance 'taylor' needs gradients, and the task gives no loss or no batches",
                hint="give the task train_batches() and loss(model, batch), or choose l1, l2 or bn_scale",
            )
        if not groups:
            return {}
        weights = tensors(module)
        gates = {group.name: _gates(module, group, weights) for group in groups}
        names = sorted({m.parameter for gate in gates.values() for members in gate for m in members})
        names = [name for name in names if weights[name].is_floating_point()]
        scores: Scores = {group.name: np.zeros(group.units) for group in groups}
        training = module.training
        wanted = {name: weights[name].requires_grad for name in names}
        used = 0
        try:
            module.eval()
            for name in names:
                weights[name].requires_grad_(True)
            with reproducible(context.seed), context.progress.step("taylor importance", context.max_batches) as step:
                for batch in islice(context.batches(), context.max_batches):
                    products = _weight_times_gradient(module, batch, context.loss, names, weights)
                    for group in groups:
                        for gate in gates[group.name]:
                            change = sum(
                                (unit_sums(products[m.parameter], m) for m in gate if m.parameter in products),
                                start=np.zeros(group.units),
                            )
                            scores[group.name] += np.abs(change)
                    used += 1
                    step.advance()
        finally:
            for name, required in wanted.items():
                weights[name].requires_grad_(required)
            module.train(training)
        if used == 0:
            raise TaskError("train_batches() gave no batch", hint="it must yield at least one batch per call")
        # Dividing by batches and members is left to the normalisation: they are the same for all units of a group.
        return {name: normalised(score) for name, score in scores.items()}


def _gates(
    module: nn.Module, group: ChannelGroup, weights: Mapping[str, torch.Tensor]
) -> tuple[tuple[Member, ...], ...]:
    """The places that can switch a unit off, each a set of members whose products add up."""
    from edgeprune.graph.normalisation import normalisations

    by_name: dict[str, list[Member]] = {}
    for member in group.members:
        by_name.setdefault(member.parameter, []).append(member)
    scales = tuple(
        tuple(member for name in (norm.weight, norm.bias) if name is not None for member in by_name.get(name, ()))
        for norm in normalisations(module)
        if norm.weight in by_name
    )
    return scales or tuple((member,) for member in producers(group, weights))


def _weight_times_gradient(
    module: nn.Module, batch: Any, loss_of: LossFn, names: Sequence[str], weights: Mapping[str, torch.Tensor]
) -> dict[str, NDArray[np.float64]]:
    import torch

    with torch.enable_grad():
        loss = scalar_loss(loss_of(module, batch), "scoring by 'taylor'")
        gradients = torch.autograd.grad(
            loss, [weights[name] for name in names], materialize_grads=True, allow_unused=True
        )
    return {
        name: (weights[name].detach().double() * gradient.double()).cpu().numpy()
        for name, gradient in zip(names, gradients, strict=True)
    }
