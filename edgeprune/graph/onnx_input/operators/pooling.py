"""ONNX pooling, reductions and resizing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from edgeprune.graph.onnx_input.operators.table import Operator, Value, integers, operator
from edgeprune.graph.onnx_input.operators.window import Window, pad, window_of

__all__: list[str] = []

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _fits(window: Window) -> bool:
    """Whether torch's own padding does."""
    return window.begin == window.end and all(
        0 <= size <= width // 2 for size, width in zip(window.begin, window.kernel, strict=True)
    )


@operator("MaxPool")
def _max_pool(op: Operator, x: torch.Tensor) -> torch.Tensor:
    window = window_of(op, x, tuple(op.get("kernel_shape")))
    if not _fits(window):
        x = pad(x, window, -math.inf)
    result: torch.Tensor = _MAX[len(window.kernel)](
        x,
        window.kernel,
        window.strides,
        window.begin if _fits(window) else 0,
        window.dilations,
        bool(op.get("ceil_mode", 0)),
    )
    return result


@operator("AveragePool")
def _average_pool(op: Operator, x: torch.Tensor) -> torch.Tensor:
    window = window_of(op, x, tuple(op.get("kernel_shape")))
    if any(dilation != 1 for dilation in window.dilations):
        raise op.refuse("has dilations")
    pool, ceil = _AVERAGE[len(window.kernel)], bool(op.get("ceil_mode", 0))
    counted = bool(op.get("count_include_pad", 0))
    result: torch.Tensor
    if _fits(window):
        result = pool(x, window.kernel, window.strides, window.begin, ceil, counted)
    else:
        result = pool(pad(x, window, 0.0), window.kernel, window.strides, 0, ceil)
        if not counted:
            inside = pad(torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype), window, 0.0)
            result = result / pool(inside, window.kernel, window.strides, 0, ceil)
    return result


@operator("GlobalAveragePool")
def _global_average_pool(_: Operator, x: torch.Tensor) -> torch.Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(_: Operator, x: torch.Tensor) -> torch.Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


_REDUCTIONS: dict[str, Any] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL1": lambda x, dims, keepdim: x.abs().sum(dims, keepdim),
    "ReduceL2": lambda x, dims, keepdim: x.square().sum(dims, keepdim).sqrt(),
    "ReduceSumSquare": lambda x, dims, keepdim: x.square().sum(dims, keepdim),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceLogSum": lambda x, dims, keepdim: x.sum(dims, keepdim).log(),
}


@operator(*_REDUCTIONS, host=(1,))
def _reduce(op: Operator, x: torch.Tensor, axes: Value = None) -> torch.Tensor:
    dims = op.get("axes", []) if axes is None else integers(axes)
    if not dims and op.get("noop_with_empty_axes", 0):
        return x
    result: torch.Tensor = _REDUCTIONS[op.kind](
        x, tuple(dims) or tuple(range(x.dim())), keepdim=bool(op.get("keepdims", 1))
    )
    return result


@operator("ReduceProd", host=(1,))
def _reduce_product(op: Operator, x: torch.Tensor, axes: Value = None) -> torch.Tensor:
    dims = op.get("axes", []) if axes is None else integers(axes)
    for dim in sorted((d % x.dim() for d in dims or range(x.dim())), reverse=True):
        x = x.prod(dim, keepdim=bool(op.get("keepdims", 1)))
    return x


@operator("ArgMax", "ArgMin")
def _arg(op: Operator, x: torch.Tensor) -> torch.Tensor:
    if op.get("select_last_index", 0):
        raise op.refuse("has select_last_index")
    function = torch.argmax if op.kind == "ArgMax" else torch.argmin
    return function(x, dim=op.get("axis", 0), keepdim=bool(op.get("keepdims", 1)))


@operator("Upsample", host=(1,))
def _upsample(op: Operator, x: torch.Tensor, scales: Value = None) -> torch.Tensor:
    factors = np.asarray(op.get("scales") if scales is None else scales, np.float64)
    return _resized(op, x, factors, None, ("asymmetric", "floor"))


@operator("Resize", host=(1, 2, 3))
def _resize(op: Operator, x: torch.Tensor, first: Value, scales: Value = None, sizes: Value = None) -> torch.Tensor:
    if op.opset < 11:
        return _resized(op, x, np.asarray(first, np.float64), None, ("asymmetric", "floor"))
    for attribute in ("antialias", "axes", "exclude_outside"):
        if op.get(attribute):
            raise op.refuse(f"has {attribute}")
    if op.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise op.refuse("keeps the aspect ratio")
    factors = None if scales is None or not np.asarray(scales).size else np.asarray(scales, np.float64)
    coordinates = op.get("coordinate_transformation_mode", "half_pixel")
    return _resized(op, x, factors, sizes, (coordinates, op.get("nearest_mode", "round_prefer_floor")))


def _resized(op: Operator, x: torch.Tensor, factors: Any, sizes: Value, way: tuple[str, str]) -> torch.Tensor:
    """`way`: how coordinates are mapped and rounded."""
    coordinates, _ = way
    rank = x.dim() - 2
    kept = factors[:2] if factors is not None else np.asarray(integers(sizes)[1:2]) / x.shape[1]
    if any(float(factor) != 1 for factor in kept):
        raise op.refuse("resizes the batch or the channels (dimensions 0 and 1)")
    before = [int(size) for size in x.shape[2:]]
    if factors is not None:
        after = [math.floor(size * factor) for size, factor in zip(before, factors[2:], strict=True)]
        steps = [float(factor) for factor in factors[2:]]
    else:
        after = [int(size) for size in integers(sizes)[2:]]
        steps = [new / old for new, old in zip(after, before, strict=True)]
    mode = op.get("mode", "nearest")
    if mode == "nearest":
        return _nearest(op, x, after, steps, way)
    names = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}
    name = names.get((mode, rank))
    known = coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners")
    coefficient = op.get("cubic_coeff_a", -0.75)
    if name is None or not known or (mode == "cubic" and coefficient != -0.75):
        raise op.refuse(f"mode {mode!r} with coordinates {coordinates!r} in {rank} dimensions has no torch form")
    if any(int(size * step) != new or not math.isclose(size * step, new) for size, step, new in zip(before, steps, after, strict=True)):  # fmt: skip  # noqa: E501
        raise op.refuse("a scale does not lead to a whole size", "give sizes, or an input size that the scale divides")
    return F.interpolate(x, size=after, mode=name, align_corners=coordinates == "align_corners")


def _nearest(op: Operator, x: torch.Tensor, after: list[int], steps: list[float], way: tuple[str, str]) -> torch.Tensor:
    coordinates, rounding = way
    tables = []
    for old, new, step in zip(x.shape[2:], after, steps, strict=True):
        position = np.arange(new, dtype=np.float64)
        if coordinates in ("half_pixel", "pytorch_half_pixel"):
            position = (position + 0.5) / step - 0.5 if new > 1 or coordinates == "half_pixel" else position * 0
        elif coordinates == "align_corners":
            position = position * (old - 1) / (new - 1) if new > 1 else position * 0
        elif coordinates == "asymmetric":
            position = position / step
        else:
            raise op.refuse(f"coordinates {coordinates!r} have no torch form")
        rounded = {
            "floor": np.floor(position),
            "ceil": np.ceil(position),
            "round_prefer_floor": np.ceil(position - 0.5),
            "round_prefer_ceil": np.floor(position + 0.5),
        }[rounding]
        tables.append(np.clip(rounded, 0, old - 1).astype(np.int64))
    plain = [np.arange(new) * old // new for old, new in zip(x.shape[2:], after, strict=True)]
    if all(np.array_equal(table, other) for table, other in zip(tables, plain, strict=True)):
        return F.interpolate(x, size=after, mode="nearest")
    for axis, table in enumerate(tables, start=2):
        x = x.index_select(axis, torch.from_numpy(table))
    return x
