"""The weights that can be made sparse: those that convolutions and linear layers multiply their input with."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from edgeprune.graph.constants import attribute
from edgeprune.graph.operators import argument_names, is_operator, operator_name

__all__ = ["Weight", "find_weights"]

_CONVOLUTIONS = tuple(f"conv{n}d" for n in (1, 2, 3))
_TRANSPOSED = tuple(f"conv_transpose{n}d" for n in (1, 2, 3))
# Operator -> its argument that is the weight, and whether that has its outputs first
_ARGUMENTS = {
    "linear": ("weight", True),
    **dict.fromkeys(_CONVOLUTIONS, ("weight", True)),
    **dict.fromkeys(_TRANSPOSED, ("weight", False)),
    "addmm": ("mat2", False),
    "mm": ("mat2", False),
    "matmul": ("other", False),
}


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter by its dotted name, and how its dimensions are to be read."""

    name: str
    shape: tuple[int, ...]
    outputs_first: bool

    def matrix(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """As (outputs, taps, inputs)."""
        flat = values.reshape(*self.shape[:2], -1)
        return flat.transpose(0, 2, 1) if self.outputs_first else flat.transpose(1, 2, 0)

    def tensor(self, matrix: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The reverse of `matrix`."""
        flat = matrix.transpose(0, 2, 1) if self.outputs_first else matrix.transpose(2, 0, 1)
        return np.ascontiguousarray(flat.reshape(self.shape))

    @property
    def size(self) -> int:
        return prod(self.shape)


def find_weights(module: GraphModule) -> tuple[Weight, ...]:
    """In graph order, each once. A parameter that is also used otherwise (an embedding, a sum) is not among them."""
    found: dict[int, Weight] = {}
    barred: set[int] = set()
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        value = attribute(module, str(node.target))
        if not isinstance(value, torch.nn.Parameter) or value.ndim < 2 or not value.is_floating_point():
            continue
        orders = {_order(user, node) for user in node.users}
        if len(orders) != 1 or None in orders:
            barred.add(id(value))
        else:
            found.setdefault(id(value), Weight(str(node.target), tuple(value.shape), bool(orders.pop())))
    return tuple(weight for key, weight in found.items() if key not in barred)


def _order(user: Node, weight: Node) -> bool | None:
    """Whether the operator reads the weight with its outputs first; None where it does not multiply with it."""
    if user.op != "call_function" or not is_operator(user):
        return None
    name = operator_name(user)
    argument, outputs_first = _ARGUMENTS.get(name, ("", False))
    names = argument_names(user)
    bound = {**dict(zip(names, user.args, strict=False)), **user.kwargs}
    places = [key for key, value in bound.items() if value is weight]
    return outputs_first if places == [argument] else None
