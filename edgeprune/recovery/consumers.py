"""The operators that take pruned units in through a weight, each as a matrix product: rows · weight + bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

from edgeprune.graph.constants import attribute
from edgeprune.graph.coupling import Coupling
from edgeprune.graph.edit import Keep
from edgeprune.graph.operators import argument_names, operator_name

__all__ = ["Consumer", "consumers", "input_of"]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
# Operator -> names of input, weight and bias, and whether the weight is (outputs, inputs)
_OPERATORS: dict[str, tuple[str, str, str | None, bool]] = {
    **dict.fromkeys((*_CONVOLUTIONS, "linear"), ("input", "weight", "bias", True)),
    "addmm": ("mat1", "mat2", "self", False),
    "matmul": ("self", "other", None, False),
    "mm": ("self", "mat2", None, False),
}


@dataclass(frozen=True, slots=True)
class Consumer:
    """One operator of the pruned graph whose input lost units, and its twin in the dense graph."""

    node: Node
    dense: Node
    weight: Node
    bias: Node | None
    kept_outputs: Tensor  # indices into the dense weight's outputs
    dims: int  # of the weight
    refused: str | None  # why its weight must stay as it is

    @property
    def name(self) -> str:
        """The weight's name."""
        return str(self.weight.target) if self.weight.op == "get_attr" else self.node.name

    @property
    def can_add_bias(self) -> bool:
        """Whether the operator takes a bias and has none."""
        return self.bias is None and _OPERATORS[operator_name(self.node)][2] == "bias"

    def value(self, module: GraphModule) -> Tensor:
        """The weight."""
        return _attribute(module, self.weight)

    def bias_value(self, module: GraphModule) -> Tensor | None:
        """The bias, where there is one."""
        return None if self.bias is None else _attribute(module, self.bias)

    def groups(self) -> int:
        """Into how many independent products the operator falls."""
        return int(self._argument("groups", 1)) if self._is_convolution else 1

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as (groups, inputs, outputs)."""
        if not _OPERATORS[operator_name(self.node)][3]:
            return weight[None]
        return weight.reshape(self.groups(), -1, math.prod(weight.shape[1:])).mT

    def from_matrix(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The weight that `matrix` gives this for."""
        return (matrix[0] if not _OPERATORS[operator_name(self.node)][3] else matrix.mT).reshape(like.shape)

    def positions(self, output: Tensor) -> int:
        """How many rows the operator's output has."""
        return output.numel() // max(output.shape[1 - self.dims if self._is_convolution else -1], 1)

    def rows(
        self, given: Tensor, output: Tensor, kernel: Sequence[int], chosen: Tensor, at_once: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """X (groups, rows, inputs) and the dense output Y (groups, rows, outputs) at the chosen positions, in chunks.

        `chosen` counts the positions of the output, without its channels.
        """
        if given.ndim < self.dims:  # one sample without a batch dimension
            given, output = given[None], output[None]
        dim = 1 if self._is_convolution else -1
        windows = self._windows(given, kernel) if self._is_convolution else given
        places = output.movedim(dim, -1).shape[:-1]
        groups = self.groups()
        for part in torch.split(chosen, at_once):
            index = torch.unravel_index(part, places)
            at: tuple[Any, ...] = (index[0], slice(None), *index[1:]) if self._is_convolution else index
            x, y = windows[at].reshape(len(part), groups, -1), output[at][:, self.kept_outputs]
            yield x.transpose(0, 1), y.reshape(len(part), groups, -1).transpose(0, 1)

    @property
    def _is_convolution(self) -> bool:
        return operator_name(self.node) in _CONVOLUTIONS

    def _windows(self, given: Tensor, kernel: Sequence[int]) -> Tensor:
        """What the kernel sees at each position of the output, (n, c, *positions, *kernel): a padded view."""
        stride, dilation = (self._each(name, 1, len(kernel)) for name in ("stride", "dilation"))
        padding = self._argument("padding", 0)
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            pads = [(t // 2, t - t // 2) for t in total]
        else:
            sizes = [0] * len(kernel) if padding == "valid" else self._each("padding", 0, len(kernel))
            pads = [(size, size) for size in sizes]
        windows = functional.pad(given, [size for pair in reversed(pads) for size in pair])
        for i, (size, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True)):
            windows = windows.unfold(2 + i, spread * (size - 1) + 1, step)[..., ::spread]
        return windows

    def _argument(self, name: str, default: Any) -> Any:
        names = argument_names(self.node)
        position = names.index(name)
        return self.node.args[position] if position < len(self.node.args) else self.node.kwargs.get(name, default)

    def _each(self, name: str, default: int, dims: int) -> list[int]:
        value = self._argument(name, default)
        values = [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)]
        return values * dims if len(values) == 1 else values


def consumers(dense: GraphModule, pruned: GraphModule, coupling: Coupling, keep: Keep) -> Iterator[Consumer]:
    """In graph order, the convolutions (not transposed), linear layers and matrix products whose input lost units.

    Nodes of the two graphs belong together by their name. A layer that is applied twice is given, but refused.
    """
    twins = {node.name: node for node in dense.graph.nodes}
    readers: dict[int, int] = {}
    for node in pruned.graph.nodes:
        if node.op == "get_attr" and isinstance(attribute(pruned, str(node.target)), Tensor):
            tensor = id(_attribute(pruned, node))
            readers[tensor] = readers.get(tensor, 0) + len(node.users)
    for node in pruned.graph.nodes:
        twin = twins.get(node.name)
        if node.op != "call_function" or twin is None or operator_name(node) not in _OPERATORS:
            continue
        _, weight_name, bias_name, outputs_first = _OPERATORS[operator_name(node)]
        weight, twin_weight = _node(node, weight_name), _node(twin, weight_name)
        labels = coupling.calls[twin][weight_name]
        inputs, outputs = (1, 0) if outputs_first else (0, 1)
        if len(labels.shape) < 2 or labels.kept_shape(keep)[inputs] == labels.shape[inputs]:
            continue
        if not isinstance(weight, Node) or not isinstance(twin_weight, Node):
            continue
        bias = _node(node, bias_name) if bias_name else None
        axis = labels.axis(outputs)
        kept = torch.arange(labels.shape[outputs])
        if axis is not None and not axis.is_joint:
            kept = kept[torch.from_numpy(keep[axis.atoms])]
        refused = None
        if weight.op != "get_attr" or not isinstance(_attribute(pruned, weight), torch.nn.Parameter):
            refused = "its weight is computed"
        elif len(labels.shape) > 2 and operator_name(node) not in _CONVOLUTIONS:
            refused = "its weight is no matrix"
        elif readers[id(_attribute(pruned, weight))] > 1:
            refused = "its weight is shared"
        elif isinstance(bias, Node) and (bias.op != "get_attr" or _attribute(pruned, bias).ndim != 1):
            refused = "its bias is computed"
        elif isinstance(bias, Node) and readers[id(_attribute(pruned, bias))] > 1:
            refused = "its bias is shared"
        yield Consumer(node, twin, weight, bias if isinstance(bias, Node) else None, kept, len(labels.shape), refused)


def input_of(node: Node) -> Node:
    """Where a consumer's input comes from."""
    found = _node(node, _OPERATORS[operator_name(node)][0])
    if not isinstance(found, Node):
        raise AssertionError(f"the input of {node.name} is no node")
    return found


def _node(node: Node, name: str) -> object:
    position = argument_names(node).index(name)
    return node.args[position] if position < len(node.args) else node.kwargs.get(name)


def _attribute(module: GraphModule, node: Node) -> Tensor:
    value = attribute(module, str(node.target))
    if not isinstance(value, Tensor):
        raise AssertionError(f"{node.target} is no tensor")
    return value
