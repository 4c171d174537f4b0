"""The normalisations of a module: which parameters scale and shift, which buffers hold running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

__all__ = ["Normalisation", "normalisations"]

_OPERATORS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_MODULES = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # noqa: SLF001  BatchNorm1d to 3d, InstanceNorm


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Dotted names of its tensors, None where it has none; `momentum` of the running statistics."""

    weight: str | None
    bias: str | None
    running_mean: str | None = None
    running_var: str | None = None
    momentum: float | None = None


def normalisations(module: nn.Module) -> tuple[Normalisation, ...]:
    """All normalisations: operators of an exported graph, and submodules of PyTorch's normalisation classes."""
    found = dict.fromkeys(_of_submodules(module))
    if isinstance(module, fx.GraphModule):
        found.update(dict.fromkeys(_of_graph(module.graph)))
    return tuple(found)


def _of_submodules(module: nn.Module) -> Iterator[Normalisation]:
    for name, part in module.named_modules():
        if isinstance(part, _MODULES):
            prefix = f"{name}." if name else ""
            tensors = {
                key: prefix + key if getattr(part, key, None) is not None else None
                for key in ("weight", "bias", "running_mean", "running_var")
            }
            momentum = getattr(part, "momentum", None)
            yield Normalisation(**tensors, momentum=momentum)


def _of_graph(graph: fx.Graph) -> Iterator[Normalisation]:
    for node in graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001  no public name
            continue
        if not any(name in str(node.target) for name in _OPERATORS):
            continue
        arguments = _arguments(node, node.target)
        names = {key: _tensor_name(arguments.get(key)) for key in ("weight", "bias", "running_mean", "running_var")}
        if any(names.values()):
            momentum = arguments.get("momentum")
            yield Normalisation(**names, momentum=float(momentum) if isinstance(momentum, (int, float)) else None)


def _arguments(node: fx.Node, operator: Any) -> dict[str, Any]:
    names = [argument.name for argument in operator._schema.arguments]  # noqa: SLF001  no public name
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _tensor_name(value: Any) -> str | None:
    return str(value.target) if isinstance(value, fx.Node) and value.op == "get_attr" else None
