"""Importance from what the units give to their consumers: Wanda's weights times activations, and APoZ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.importance.base import ImportanceContext, Scores, arrays, tensors
from edgeprune.importance.data import scoring
from edgeprune.importance.magnitude import L1
from edgeprune.importance.reduction import Normalise, Reduction

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["NonZero", "Wanda", "input_norms"]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanda(Reduction):
    """Sum of |weight| · ‖activation‖ over the weights that take a unit in (Sun et al. 2024, arXiv:2306.11695).

    Equation 1, summed over a unit's weights in each consumer, with the root mean square over examples and positions
    for the norm. Seen are inputs of convolutions and linear layers; a group without either is scored by l1, and the
    context's progress says so. Mode, threads and errors as for `taylor`; the loss is only how the model is called.
    """

    needs_data = True

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        weights = tensors(module)

        def contribution(member: Member, seen: _Inputs) -> NDArray[np.float64]:
            values = np.abs(arrays(weights, [member.parameter])[member.parameter])
            rest = tuple(range(2, values.ndim))
            per_input = values.sum(axis=rest, dtype=np.float64)  # (outputs, inputs of a convolution's group)
            convolution_groups = len(seen.squares) // per_input.shape[1]
            per_group = per_input.reshape(convolution_groups, -1, per_input.shape[1]).sum(axis=1)
            norm = np.sqrt(seen.squares / seen.count).reshape(per_group.shape)
            return np.asarray((per_group * norm).sum(axis=0))

        return _scored(self, contribution, module, groups, context, name="wanda")


@dataclass(frozen=True, slots=True, kw_only=True)
class NonZero(Reduction):
    """The share of a unit's activations that are not zero: 1 - APoZ (Hu et al. 2016, arXiv:1607.03250, equation 1).

    Taken at the consumers, after the activation function: for networks with ReLU. As shares compare by themselves,
    there is no normalisation by default. What is seen, mode, threads and errors as for `wanda`.
    """

    normalise: Normalise = "none"
    needs_data = True

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        inputs_of = {name: tensor.shape[1] for name, tensor in tensors(module).items() if tensor.ndim >= 2}

        def share(member: Member, seen: _Inputs) -> NDArray[np.float64]:
            return np.asarray((seen.nonzero / seen.count).reshape(-1, inputs_of[member.parameter]).mean(axis=0))

        return _scored(self, share, module, groups, context, name="apoz")


@dataclass(slots=True)
class _Inputs:
    """What a weight has been applied to, per input channel; `count` is examples times positions."""

    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    nonzero: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    count: int = 0

    def add(self, values: torch.Tensor, channel: int) -> None:
        others = [axis for axis in range(values.ndim) if axis != channel % values.ndim]
        values = values.detach().double()
        self.squares = self.squares + values.square().sum(dim=others).cpu().numpy()
        self.nonzero = self.nonzero + (values != 0).sum(dim=others).cpu().numpy()
        self.count += values.numel() // values.shape[channel]


def input_norms(module: nn.Module, names: Sequence[str], context: ImportanceContext) -> dict[str, NDArray[np.float64]]:
    """Per weight of a convolution or linear layer the root mean square of each input channel over the batches.

    A weight that no such operator uses is left out. Raises TaskError where the context has no batches and loss.
    """
    import torch

    wanted = {name: _Inputs() for name in names}
    with scoring("wanda", module, context) as (batches, loss_of), torch.no_grad():
        for batch in batches:
            with _watch(tensors(module), wanted):
                loss_of(batch)
    return {name: np.sqrt(seen.squares / seen.count) for name, seen in wanted.items() if seen.count}


def _scored(
    reduction: Reduction,
    score_of: Callable[[Member, _Inputs], NDArray[np.float64]],
    module: nn.Module,
    groups: Sequence[ChannelGroup],
    context: ImportanceContext,
    *,
    name: str,
) -> Scores:
    import torch

    weights = tensors(module)
    consumers = {g.name: [m for m in g.members if m.role == "consumer" and m.dim == 1] for g in groups}
    wanted = {m.parameter: _Inputs() for members in consumers.values() for m in members}
    with scoring(name, module, context) as (batches, loss_of), torch.no_grad():
        for batch in batches:
            with _watch(weights, wanted):
                loss_of(batch)
    scores: Scores = {}
    unseen = []
    for group in groups:
        places = [(m,) for m in consumers[group.name] if wanted[m.parameter].count]
        per_place = [score_of(m, wanted[m.parameter])[m.indices].sum(axis=1) for (m,) in places]
        if places:
            scores[group.name] = reduction.join(group, places, per_place, weights)
        else:
            unseen.append(group)
    if unseen:
        context.progress.say(
            f"{name}: {len(unseen)} of {len(groups)} groups feed no convolution or linear layer and are scored by l1: "
            + ", ".join(group.name for group in unseen[:3])
            + (", …" if len(unseen) > 3 else "")
        )
        scores |= L1(normalise=reduction.normalise).score(module, unseen, context)
    return scores


def _watch(weights: Mapping[str, torch.Tensor], wanted: Mapping[str, _Inputs]) -> Any:
    """While this is entered, the inputs of convolutions and linear layers with the wanted weights are recorded."""
    from torch.overrides import TorchFunctionMode

    by_tensor = {id(weights[name]): name for name in wanted}

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            operator = getattr(function, "__name__", "").partition(".")[0]
            if operator == "linear" or operator in _CONVOLUTIONS:
                values: torch.Tensor = args[0] if args else kwargs["input"]
                weight: torch.Tensor = args[1] if len(args) > 1 else kwargs["weight"]
                seen = wanted.get(by_tensor.get(id(weight), ""))
                if seen is not None:
                    # The channel stands before the positions: counted from behind, the batch may be missing.
                    seen.add(values, -1 if operator == "linear" else 1 - weight.ndim)
            return function(*args, **kwargs)

    return Watch()
