"""Importance from the gradients of the loss: first-order Taylor, and the Fisher diagonal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph.groups import ChannelGroup
from edgeprune.importance.base import ImportanceContext, Scores, tensors, unit_sums
from edgeprune.importance.data import scoring
from edgeprune.importance.reduction import MemberReduction, Members, Place
from edgeprune.training_data import scalar_loss

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Fisher", "Taylor"]

Products = dict[str, NDArray[np.float64]]  # per parameter weight times gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class Taylor(MemberReduction):
    """How much the loss changes to first order when a unit is removed: |Σ weight · gradient| (Molchanov et al. 2019).

    arXiv:1906.10771, "Taylor-FO": the sum runs over a unit's elements of one member, its magnitude is averaged over
    the batches. The members are the group's normalisations (weight and bias, as the paper advises), or else the
    weights that produce the unit. The module runs in eval mode and on one thread, so that the scores do not depend
    on how many there are. Raises TaskError where the task has no `train_batches` and `loss`.
    """

    members: Members = "gates"
    needs_data = True

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        def change(place: Place, products: Products) -> NDArray[np.float64]:
            return np.asarray(np.abs(np.sum([unit_sums(products[m.parameter], m) for m in place], axis=0)))

        return _mean_over_batches(self, change, module, groups, context, name="taylor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fisher(MemberReduction):
    """How much the loss changes to second order: ½ Σ (weight · gradient)², the diagonal of the Fisher information.

    Optimal brain damage (LeCun et al. 1990: ½ h w² per weight) with the Hessian's diagonal h taken as the mean square
    of the gradient (Theis et al. 2018, arXiv:1801.05787; Molchanov et al. 2019, arXiv:1906.10771). The mean is over
    batches, whose gradients are themselves means over examples. Members, mode, threads and errors as for Taylor.
    """

    members: Members = "gates"
    needs_data = True

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        def change(place: Place, products: Products) -> NDArray[np.float64]:
            return np.asarray(np.sum([unit_sums(products[m.parameter] ** 2, m) for m in place], axis=0) / 2)

        return _mean_over_batches(self, change, module, groups, context, name="fisher")


def _mean_over_batches(
    reduction: MemberReduction,
    change: Callable[[Place, Products], NDArray[np.float64]],
    module: nn.Module,
    groups: Sequence[ChannelGroup],
    context: ImportanceContext,
    *,
    name: str,
) -> Scores:
    if not groups:
        return {}
    weights = tensors(module)
    places = reduction.places(module, groups, weights)
    names = sorted({m.parameter for found in places.values() for place in found for m in place})
    scores: dict[str, list[NDArray[np.float64]]] = {g.name: [np.zeros(g.units) for _ in places[g.name]] for g in groups}
    used = 0
    with scoring(name, module, context) as (batches, loss_of), _differentiable(weights, names) as wanted:
        for batch in batches:
            products = _weight_times_gradient(loss_of(batch), f"scoring by {name!r}", wanted, weights)
            for group in groups:
                for i, place in enumerate(places[group.name]):
                    scores[group.name][i] += change(tuple(m for m in place if m.parameter in products), products)
            used += 1
    return {
        group.name: reduction.join(
            group, places[group.name], [score / max(used, 1) for score in scores[group.name]], weights
        )
        for group in groups
    }


@contextmanager
def _differentiable(weights: Mapping[str, torch.Tensor], names: Sequence[str]) -> Iterator[list[str]]:
    """Those of the parameters that can have gradients, with gradients on; afterwards they are as they were."""
    import torch

    wanted = [name for name in names if weights[name].is_floating_point()]
    before = {name: weights[name].requires_grad for name in wanted}
    try:
        for name in wanted:
            weights[name].requires_grad_(True)
        with torch.enable_grad():
            yield wanted
    finally:
        for name, required in before.items():
            weights[name].requires_grad_(required)


def _weight_times_gradient(
    loss: object, where: str, names: Sequence[str], weights: Mapping[str, torch.Tensor]
) -> Products:
    import torch

    gradients = torch.autograd.grad(
        scalar_loss(loss, where), [weights[name] for name in names], materialize_grads=True, allow_unused=True
    )
    return {
        name: (weights[name].detach().double() * gradient.double()).cpu().numpy()
        for name, gradient in zip(names, gradients, strict=True)
    }
