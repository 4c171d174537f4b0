"""An ONNX graph as a torch module: its float constants are parameters, its nodes are computed with torch functions."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.errors import CaptureError
from edgeprune.graph.onnx_input.operators import elementwise, layers, movement, pooling  # noqa: F401  fill the table
from edgeprune.graph.onnx_input.operators.table import HOST_INPUTS, OPERATORS, Operator, Value, as_tensor
from edgeprune.graph.onnx_input.reader import OnnxGraph
from edgeprune.graph.onnx_input.shape_arithmetic import fold, shape_array

__all__ = ["OnnxModule"]

_STATISTICS = {"BatchNormalization": (3, 4)}  # inputs that are estimated, not trained


class OnnxModule(nn.Module):
    """Computes an ONNX graph. With `free_batch`, a batch that the file fixes may be any other.

    Float constants of one dimension or more are parameters under their ONNX names (what is not a letter or digit
    becomes "_"; dots are levels); numbers and what is read while the graph is built are not.
    """

    def __init__(self, graph: OnnxGraph, *, free_batch: bool = False) -> None:
        super().__init__()
        self._nodes = graph.nodes
        self._inputs = tuple(value.name for value in graph.inputs)
        self._outputs = graph.outputs
        self._host = dict(graph.constants)
        self._names: dict[str, str] = {}
        first = graph.inputs[0].shape[:1] if graph.inputs else ()
        self._fixed = first[0] if first and isinstance(first[0], int) else None
        self.free_batch = free_batch and self._fixed is not None
        self._last_use = _last_uses(graph)
        self._adopt(graph)

    def _adopt(self, graph: OnnxGraph) -> None:
        """Make parameters and buffers of the constants that tensors are computed with."""
        trained: set[str] = set()
        estimated: set[str] = set()
        for node in graph.nodes:
            statistics = _STATISTICS.get(node.kind, ())
            for position, name in enumerate(node.inputs):
                if name in self._host and position not in HOST_INPUTS.get(node.kind, ()):
                    (estimated if position in statistics else trained).add(name)
        taken: set[str] = set()
        for name in list(self._host):
            array = self._host[name]
            if array.dtype.kind != "f" or array.ndim == 0 or name not in trained | estimated:
                continue
            tensor = torch.from_numpy(np.array(array, order="C"))  # the file's memory is read-only
            attribute = self._register(name, tensor, trained=name not in estimated, taken=taken)
            self._names[name] = attribute
            self._host[name] = graph.constants[name] = np.empty(0, np.float32)  # one copy is enough

    def _register(self, name: str, tensor: torch.Tensor, *, trained: bool, taken: set[str]) -> str:
        parts = [_valid(part) for part in re.sub(r"[^0-9A-Za-z_.]", "_", name).split(".") if part] or ["constant"]
        prefixes = {".".join(parts[:depth]) for depth in range(1, len(parts))}
        whole = ".".join(parts)
        if prefixes & taken or whole in taken or any(other.startswith(whole + ".") for other in taken):
            parts = [f"{'_'.join(parts)}_{len(taken)}"]
        holder: nn.Module = self
        for part in parts[:-1]:
            if not isinstance(getattr(holder, part, None), nn.Module):
                holder.add_module(part, nn.Module())
            holder = holder.get_submodule(part)
        if trained:
            holder.register_parameter(parts[-1], nn.Parameter(tensor))
        else:
            holder.register_buffer(parts[-1], tensor)
        taken.add(".".join(parts))
        return ".".join(parts)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The outputs of the graph, as one tensor or a tuple."""
        values = self._compute(inputs)
        outputs = tuple(as_tensor(values[name]) for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def intermediates(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every value that the nodes compute, by its ONNX name, in the order of computation."""
        values = self._compute(inputs, keep=True)
        return {
            name: as_tensor(values[name])
            for node in self._nodes
            for name in node.outputs
            if name and values[name] is not None
        }

    def _compute(self, inputs: tuple[torch.Tensor, ...], *, keep: bool = False) -> dict[str, Value]:
        values: dict[str, Value] = dict(self._host)
        for name, attribute in self._names.items():
            path, _, last = attribute.rpartition(".")
            values[name] = getattr(self.get_submodule(path), last)
        values.update(zip(self._inputs, inputs, strict=True))
        batch = inputs[0].shape[0] if inputs and inputs[0].dim() else None
        for position, node in enumerate(self._nodes):
            arguments = [values[name] if name else None for name in node.inputs]
            if self.free_batch:
                arguments = _with_batch(node, arguments, self._fixed, batch)
            results = _run(node, arguments)
            results = results if isinstance(results, tuple) else (results,)
            if len(results) < len(node.outputs) and any(self._used(name) for name in node.outputs[len(results) :]):
                raise node.refuse(f"its output {len(results) + 1} is used")
            values.update(zip(node.outputs, (*results, *[None] * len(node.outputs)), strict=False))
            if not keep:
                for name in self._last_use.get(position, ()):
                    del values[name]
        return values

    def _used(self, name: str) -> bool:
        return bool(name) and (name in self._outputs or any(name in node.inputs for node in self._nodes))


def _run(node: Operator, arguments: list[Value]) -> Any:
    if node.kind in ("Shape", "Size"):
        sizes = list(arguments[0].shape)  # type: ignore[union-attr]
        if node.kind == "Size":
            return np.asarray(np.prod(shape_array(sizes)))
        return shape_array(sizes[node.get("start", 0) : node.get("end", len(sizes))])
    if all(value is None or isinstance(value, np.ndarray) for value in arguments):
        folded = fold(node, arguments)
        if folded is not None:
            return folded
    for position in HOST_INPUTS[node.kind]:
        if position < len(arguments) and isinstance(arguments[position], torch.Tensor):
            raise node.refuse(f"its input {node.inputs[position]!r} depends on the data, and must be a constant")
    try:
        return OPERATORS[node.kind](node, *arguments)
    except CaptureError as error:
        if node.name in error.message:
            raise
        raise node.refuse(error.message) from error


def _with_batch(node: Operator, arguments: list[Value], fixed: int | None, batch: Any) -> list[Value]:
    """Literals that stand for the file's own batch become the batch of the input.

    What this takes for the batch is proven by the comparison with ONNX Runtime, example by example.
    """
    first = arguments[0] if arguments else None
    if node.kind in ("Reshape", "Expand") and isinstance(first, torch.Tensor) and first.dim():
        shape = np.asarray(arguments[1])
        carries = first.shape[0] == batch
        if shape.size and carries and isinstance(shape[0], int | np.integer) and shape[0] == fixed:
            return [first, np.array([batch, *shape[1:].tolist()], object), *arguments[2:]]
    if node.kind == "Concat" and node.get("axis") != 0:
        sizes = [value.shape[0] for value in arguments if value is not None and value.ndim]
        if any(not isinstance(size, int) or size == batch for size in sizes):
            return [
                as_tensor(value).expand(batch, *value.shape[1:])
                if value is not None and isinstance(value.shape[0], int) and value.shape[0] == fixed == 1
                else value
                for value in arguments
            ]
    return arguments


def _last_uses(graph: OnnxGraph) -> dict[int, list[str]]:
    """Per node, the values that none after it needs."""
    last: dict[str, int] = {}
    for position, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.outputs):
            if name:
                last[name] = position
    kept = {*graph.outputs, *graph.constants}
    uses: dict[int, list[str]] = {}
    for name, position in last.items():
        if name not in kept:
            uses.setdefault(position, []).append(name)
    return uses


def _valid(part: str) -> str:
    return f"{part.strip('_')}_" if hasattr(OnnxModule, part) or part.startswith("_") else part
