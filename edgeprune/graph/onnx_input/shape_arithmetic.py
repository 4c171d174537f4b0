"""Shape arithmetic: ONNX operators on host arrays, computed while the graph is built, so that none of it is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from edgeprune.graph.onnx_input.operators.movement import axes_of, shape_of_reshape, slices_of, split_sizes
from edgeprune.graph.onnx_input.operators.table import Host, Operator, integers

__all__ = ["fold", "shape_array"]

_MAX_ELEMENTS = 2**24  # a shape is short; a table of indices has some thousands


def shape_array(sizes: Sequence[Any]) -> Host:
    """Sizes as an array: of integers, or of objects where one is symbolic."""
    return np.array(sizes, np.int64 if all(isinstance(size, int) for size in sizes) else object)


def fold(op: Operator, values: Sequence[Any]) -> Any:
    """What the node gives on host arrays; None where it is not shape arithmetic."""
    function = _FOLDED.get(op.kind)
    return None if function is None else function(op, *values)


def _divide(_: Operator, a: Host, b: Host) -> Host:
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return np.asarray(a / b)
    if np.dtype(object) in {a.dtype, b.dtype}:
        return np.asarray(a // b, object)  # sizes are positive
    return np.asarray(np.trunc(a / b) if (a < 0).any() or (b < 0).any() else a // b, a.dtype)


def _compare(function: Callable[[Any, Any], Any]) -> Callable[..., Host]:
    # A symbolic size is larger than one and unequal to any literal: bool() asks for just that.
    return lambda _, a, b: np.vectorize(lambda x, y: bool(function(x, y)), otypes=[bool])(a, b)


def _cast(op: Operator, x: Host) -> Host:
    return x if x.dtype == object else x.astype(tensor_dtype_to_np_dtype(op.get("to")))


def _gather(op: Operator, x: Host, indices: Host) -> Host:
    return np.asarray(np.take(x, indices.astype(np.int64), axis=op.get("axis", 0)), x.dtype)


def _slice(op: Operator, x: Host, *bounds: Host) -> Host:
    return x[tuple(slices_of(op, x.ndim, bounds))]


def _split(op: Operator, x: Host, sizes: Host | None = None) -> tuple[Host, ...]:
    axis = op.get("axis", 0)
    return tuple(np.split(x, np.cumsum(split_sizes(op, x.shape[axis], sizes))[:-1], axis=axis))


def _unsqueeze(op: Operator, x: Host, axes: Host | None = None) -> Host:
    return np.expand_dims(x, tuple(axes_of(op, axes)))


def _squeeze(op: Operator, x: Host, axes: Host | None = None) -> Host:
    return np.squeeze(x, tuple(axes_of(op, axes)) or None)


def _reduce(function: Any) -> Callable[..., Host]:
    def reduced(op: Operator, x: Host, axes: Host | None = None) -> Host:
        dims = tuple(axes_of(op, axes)) or None
        return np.asarray(function(x, axis=dims, keepdims=bool(op.get("keepdims", 1))), x.dtype)

    return reduced


def _flatten(op: Operator, x: Host) -> Host:
    axis = op.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))


def _constant_of_shape(op: Operator, shape: Host) -> Host | None:
    if shape.dtype == object or int(np.prod(shape)) > _MAX_ELEMENTS:
        return None
    value = np.asarray(op.get("value", np.zeros(1, np.float32)))
    return np.full(tuple(integers(shape)), value.item(), value.dtype)


def _range(_: Operator, start: Host, limit: Host, delta: Host) -> Host | None:
    if any(value.dtype == object for value in (start, limit, delta)):
        return None
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _expand(_: Operator, x: Host, shape: Host) -> Host | None:
    if shape.dtype == object or int(np.prod(shape)) > _MAX_ELEMENTS:
        return None
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(integers(shape))))


def _reshape(op: Operator, x: Host, shape: Host) -> Host:
    return x.reshape(shape_of_reshape(op, x.shape, shape))


_FOLDED: dict[str, Callable[..., Any]] = {
    "Identity": lambda _, x: x,
    "Add": lambda _, a, b: np.asarray(a + b),
    "Sub": lambda _, a, b: np.asarray(a - b),
    "Mul": lambda _, a, b: np.asarray(a * b),
    "Div": _divide,
    "Mod": lambda _, a, b: np.asarray(a % b),
    "Pow": lambda _, a, b: np.asarray(a**b, a.dtype),
    "Neg": lambda _, x: np.asarray(-x),
    "Abs": lambda _, x: np.asarray(abs(x)),
    "Sqrt": lambda _, x: np.asarray(np.sqrt(x)),
    "Floor": lambda _, x: np.asarray(np.floor(x)),
    "Ceil": lambda _, x: np.asarray(np.ceil(x)),
    "Reciprocal": lambda _, x: np.asarray(1 / x),
    "Min": lambda _, *xs: reduce(np.minimum, xs),
    "Max": lambda _, *xs: reduce(np.maximum, xs),
    "Equal": _compare(lambda a, b: a == b),
    "Less": _compare(lambda a, b: a < b),
    "LessOrEqual": _compare(lambda a, b: a <= b),
    "Greater": _compare(lambda a, b: a > b),
    "GreaterOrEqual": _compare(lambda a, b: a >= b),
    "And": lambda _, a, b: a & b,
    "Or": lambda _, a, b: a | b,
    "Not": lambda _, x: ~x,
    "Where": lambda _, condition, a, b: np.where(condition, a, b),
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Concat": lambda op, *xs: np.concatenate(xs, axis=op.get("axis")),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda op, x: np.transpose(x, op.get("perm")),
    "Tile": lambda _, x, repeats: np.tile(x, integers(repeats)),
}
