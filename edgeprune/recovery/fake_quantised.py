"""Quantisation-aware fine-tuning: training on a graph that rounds as int8 does, with straight-through gradients.

Weights are rounded to 255 symmetric levels, activations to 256 levels over their range in the batch at hand, as
quantisation by the range of values does afterwards (Jacob et al. 2018, arXiv:1712.05877; gradients: Bengio et al. 2013,
arXiv:1308.3432). Batch norms are frozen, and the weights before them rounded as they are when both are one, as export
makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.graph.operators import argument_names, is_operator, operator_name
from edgeprune.progress import SILENT, Progress
from edgeprune.records.candidate import Candidate
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.recovery.finetune import FineTuneReport, finetune
from edgeprune.training_data import BatchSource, LossFn

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.graph.captured import Prunable

__all__ = ["activation_on_grid", "fake_quantised", "quantisation_aware", "weight_on_grid"]

_WEIGHTED = ("conv1d", "conv2d", "conv3d", "linear")
# What runtimes compute in int8: their floating-point operands are rounded.
_ROUNDED = (*_WEIGHTED, "matmul", "bmm", "add", "add_", "cat", "mean", "avg_pool2d", "adaptive_avg_pool2d")
_SLOWER = 0.1  # of the learning rate: what is moved are roundings, not features


def quantisation_aware(
    model: Prunable,
    batches: BatchSource,
    loss: LossFn,
    *,
    per_channel: bool,
    settings: FineTuneSettings,
    teacher: nn.Module | None,
    seed: int,
    progress: Progress = SILENT,
) -> FineTuneReport:
    """Train the model's weights in place, as `finetune` does at a tenth of the rate, for how they will be rounded."""
    twin = fake_quantised(model, per_channel=per_channel)
    slower = replace(settings, learning_rate=_SLOWER * settings.learning_rate)
    report = finetune(
        twin, batches, loss, settings=slower, teacher=teacher, seed=seed, max_gradient_norm=1.0, progress=progress
    )
    model.module.load_state_dict(twin.state_dict())
    return report


def fake_quantised(model: Prunable, *, per_channel: bool) -> GraphModule:
    """A copy of the model's graph, with weights of its own under the same names, that rounds as int8 does."""
    module = model.prune(Candidate(), verify=False).module
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not is_operator(node):
            continue
        name = operator_name(node)
        if name == "batch_norm":
            _set(node, "training", value=False)
        elif name in _ROUNDED:
            weight = _argument(node, "weight") if name in _WEIGHTED else None
            for operand in _floating(node, but=(weight, _argument(node, "bias"))):
                _round(module, node, operand)
            if weight is not None:
                _round_weight(module, node, weight, per_channel=per_channel)
    module.graph.lint()
    module.recompile()
    return module


def activation_on_grid(x: Tensor) -> Tensor:
    """x on the 256 levels between its least and largest value, 0 among them; gradients pass as if nothing were done."""
    values = x.detach()
    low, high = values.amin().clamp(max=0.0), values.amax().clamp(min=0.0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(x.dtype).tiny)
    zero = torch.round(-low / scale)
    rounded = (torch.clamp(torch.round(values / scale) + zero, 0, 255) - zero) * scale
    return x + (rounded - values)


def weight_on_grid(
    weight: Tensor, per_channel: bool, norm_weight: Tensor | None, norm_var: Tensor | None, eps: float
) -> Tensor:
    """A weight (outputs first) on 255 levels around 0, one scale for all of it or for each output; likewise.

    With a batch norm behind it, as they are rounded when both are one, told back to the weight alone.
    """
    values = weight.detach()
    factor = torch.ones_like(values[:, :1].flatten(1)[:, 0])
    if norm_var is not None:
        factor = torch.rsqrt(norm_var.detach() + eps)
        if norm_weight is not None:
            factor = factor * norm_weight.detach()
    factor = factor.reshape(-1, *[1] * (values.ndim - 1))
    folded = values * factor
    largest = folded.abs().flatten(1).amax(1).reshape(factor.shape) if per_channel else folded.abs().amax()
    scale = (largest / 127).clamp(min=torch.finfo(weight.dtype).tiny)
    rounded = torch.clamp(torch.round(folded / scale), -127, 127) * scale
    # A factor of 0 cuts the output off, whatever the weight is.
    told = torch.where(factor != 0, rounded / torch.where(factor != 0, factor, torch.ones_like(factor)), values)
    return weight + (told - values)


def _round(module: GraphModule, user: Node, operand: Node) -> None:
    """The operand of this user alone goes through the grid; equal grids of several users cost time, not exactness."""
    with module.graph.inserting_before(user):
        rounded = module.graph.call_function(activation_on_grid, (operand,))
    rounded.meta = dict(operand.meta)
    user.replace_input_with(operand, rounded)


def _round_weight(module: GraphModule, user: Node, weight: Node, *, per_channel: bool) -> None:
    norm = next(iter(user.users), None)
    folded = len(user.users) == 1 and norm is not None and operator_name(norm) == "batch_norm"
    names = ("weight", "running_var") if folded and norm is not None else ()
    with module.graph.inserting_before(user):
        found = [_again(module, _argument(norm, name)) for name in names if norm is not None]
        scale, variance = found or (None, None)
        eps = _value(norm, "eps") if folded and norm is not None else 0.0
        rounded = module.graph.call_function(weight_on_grid, (weight, per_channel, scale, variance, eps))  # type: ignore[arg-type]
    rounded.meta = dict(weight.meta)
    user.replace_input_with(weight, rounded)


def _again(module: GraphModule, node: Node | None) -> Node | None:
    """The attribute that the node reads, read here: its own node may come later."""
    return None if node is None or node.op != "get_attr" else module.graph.create_node("get_attr", str(node.target))


def _floating(node: Node, but: tuple[Node | None, ...]) -> Iterator[Node]:
    for operand in dict.fromkeys(node.all_input_nodes):
        value = operand.meta.get("val")
        if operand not in but and isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim:
            yield operand


def _argument(node: Node, name: str) -> Node | None:
    value = _value(node, name)
    return value if isinstance(value, Node) else None


def _value(node: Node, name: str) -> object:
    names = argument_names(node)
    if name not in names:
        return None
    position = names.index(name)
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name)


def _set(node: Node, name: str, *, value: object) -> None:
    position = argument_names(node).index(name)
    if position < len(node.args):
        node.update_arg(position, value)  # type: ignore[arg-type]
    else:
        node.update_kwarg(name, value)  # type: ignore[arg-type]
