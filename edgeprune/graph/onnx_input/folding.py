"""Movement of weights, done when the file is read: a parameter then has the shape that the network uses it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from edgeprune.graph.onnx_input.operators.table import Host, Operator
from edgeprune.graph.onnx_input.shape_arithmetic import fold

__all__ = ["fold_movement"]

_MOVEMENT = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"})


def fold_movement(nodes: Sequence[Operator], constants: dict[str, Host], outputs: Collection[str]) -> list[Operator]:
    """The nodes without those that only move a float constant; it keeps its name, and `constants` has its new shape.

    A constant that is used twice stays as it is, and so do casts to another type.
    """
    uses = Counter(name for node in nodes for name in node.inputs)
    uses.update(outputs)
    moved: dict[str, str] = {}  # what a node gave -> the constant
    kept = []
    for original in nodes:
        node = replace(original, inputs=tuple(moved.get(name, name) for name in original.inputs))
        result = None if node.outputs[0] in outputs else _moved(node, constants, uses)
        if result is None:
            kept.append(node)
            continue
        name = node.inputs[0]
        constants[name] = result
        moved[node.outputs[0]] = name
        uses[name] = uses[node.outputs[0]]
    return kept


def _moved(node: Operator, constants: dict[str, Host], uses: Counter[str]) -> Host | None:
    given = [constants.get(name) for name in node.inputs]
    if node.kind not in _MOVEMENT or any(value is None for value in given):
        return None
    value = given[0]
    if value is None or value.dtype.kind != "f" or uses[node.inputs[0]] != 1:
        return None
    if node.kind == "Cast" and tensor_dtype_to_np_dtype(node.get("to")) != value.dtype:
        return None
    result = fold(node, given)
    return result if isinstance(result, np.ndarray) else None
