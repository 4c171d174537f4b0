"""ONNX operators that move data: shapes, slices, gathers, paddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx.helper import tensor_dtype_to_np_dtype

from edgeprune.graph.onnx_input.operators.table import Operator, Value, as_tensor, integers, operator

__all__ = ["axes_of", "shape_of_reshape", "slices_of", "split_sizes"]

_LAST = 2**31 - 1  # what exporters write for "to the end", at least


@operator("Reshape", host=(1,))
def _reshape(op: Operator, x: Value, shape: Value) -> torch.Tensor:
    tensor = as_tensor(x)
    return tensor.reshape(shape_of_reshape(op, tensor.shape, shape))


def shape_of_reshape(op: Operator, old: Sequence[Any], shape: Value) -> list[Any]:
    """The target of a Reshape, with zeros (an old size is kept) filled in."""
    sizes = integers(shape)
    keep = not op.get("allowzero", 0)
    return [old[axis] if isinstance(size, int) and size == 0 and keep else size for axis, size in enumerate(sizes)]


@operator("Flatten")
def _flatten(op: Operator, x: torch.Tensor) -> torch.Tensor:
    axis = op.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 0:
        return x.reshape(1, -1)
    if axis == x.dim():
        return x.reshape(-1, 1)
    return x.flatten(0, axis - 1).flatten(1)


@operator("Transpose")
def _transpose(op: Operator, x: Value) -> torch.Tensor:
    tensor = as_tensor(x)
    return tensor.permute(op.get("perm", list(reversed(range(tensor.dim())))))


def axes_of(op: Operator, axes: Value) -> list[int]:
    """The axes of a node: an attribute, or an input from opset 13 on."""
    return [int(axis) for axis in (op.get("axes", []) if axes is None else integers(axes))]


@operator("Squeeze", host=(1,))
def _squeeze(op: Operator, x: torch.Tensor, axes: Value = None) -> torch.Tensor:
    dims = axes_of(op, axes)
    return torch.squeeze(x, tuple(dims)) if dims else torch.squeeze(x)


@operator("Unsqueeze", host=(1,))
def _unsqueeze(op: Operator, x: Value, axes: Value = None) -> torch.Tensor:
    tensor = as_tensor(x)
    dims = axes_of(op, axes)
    rank = tensor.dim() + len(dims)
    for axis in sorted(dim % rank for dim in dims):
        tensor = tensor.unsqueeze(axis)
    return tensor


@operator("Concat")
def _concat(op: Operator, *values: Value) -> torch.Tensor:
    return torch.cat([as_tensor(value) for value in values], dim=op.get("axis"))


def split_sizes(op: Operator, size: Any, sizes: Value) -> list[Any]:
    """The sizes of the parts of a Split of `size`."""
    given = op.get("split") if sizes is None else integers(sizes)
    if given is not None:
        return list(given)
    parts = op.get("num_outputs", len(op.outputs))
    each = -(-size // parts)
    return [each] * (parts - 1) + [size - each * (parts - 1)]


@operator("Split", host=(1,))
def _split(op: Operator, x: torch.Tensor, sizes: Value = None) -> tuple[torch.Tensor, ...]:
    axis = op.get("axis", 0)
    return tuple(torch.split(x, split_sizes(op, x.shape[axis], sizes), dim=axis))


def slices_of(op: Operator, rank: int, bounds: Sequence[Value]) -> list[slice]:
    """One slice per dimension, from the attributes (before opset 10) or from the inputs."""
    if not bounds:
        starts, ends, axes, steps = op.get("starts"), op.get("ends"), op.get("axes"), None
    else:
        padded: list[Value] = [*bounds, None, None][:4]
        starts, ends, axes, steps = (None if value is None else integers(value) for value in padded)
    slices = [slice(None)] * rank
    for position, (start, end) in enumerate(zip(starts or [], ends or [], strict=True)):
        step = 1 if steps is None else steps[position]
        if step < 0:
            end = None if isinstance(end, int) and end <= -_LAST else end  # noqa: PLW2901
        elif isinstance(end, int) and end >= _LAST:
            end = None  # noqa: PLW2901
        slices[position if axes is None else axes[position]] = slice(start, end, step)
    return slices


@operator("Slice", host=(1, 2, 3, 4))
def _slice(op: Operator, x: Value, *bounds: Value) -> torch.Tensor:
    tensor = as_tensor(x)
    for axis, part in enumerate(slices_of(op, tensor.dim(), bounds)):
        if part == slice(None):
            continue
        if part.step < 0:  # torch has no negative steps
            chosen = np.arange(int(tensor.shape[axis]))[part]
            reverse = np.array_equal(chosen, np.arange(len(chosen))[::-1]) and len(chosen) == tensor.shape[axis]
            tensor = tensor.flip(axis) if reverse else tensor.index_select(axis, torch.from_numpy(chosen.copy()))
        else:
            tensor = tensor[(slice(None),) * axis + (part,)]
    return tensor


@operator("Gather")
def _gather(op: Operator, x: Value, indices: Value) -> torch.Tensor:
    data = as_tensor(x)
    axis = op.get("axis", 0) % data.dim()
    if isinstance(indices, np.ndarray):
        if indices.ndim == 0:
            return data.select(axis, indices.item())
        size = int(data.shape[axis])
        flat = torch.from_numpy(indices.reshape(-1).astype(np.int64) % size)
        chosen = data.index_select(axis, flat)
        return chosen if indices.ndim == 1 else _unflattened(chosen, axis, indices.shape)
    index = as_tensor(indices).long()
    if axis == 0 and data.dim() == 2:
        return F.embedding(index, data)
    if index.dim() == 0:
        return data.index_select(axis, index.reshape(1)).squeeze(axis)
    return _unflattened(data.index_select(axis, index.reshape(-1)), axis, index.shape)


def _unflattened(x: torch.Tensor, axis: int, sizes: Sequence[Any]) -> torch.Tensor:
    return x.reshape([*x.shape[:axis], *sizes, *x.shape[axis + 1 :]])


@operator("GatherElements")
def _gather_elements(op: Operator, x: Value, indices: Value) -> torch.Tensor:
    data, index, axis = as_tensor(x), as_tensor(indices).long(), op.get("axis", 0)
    return torch.gather(data, axis, torch.where(index < 0, index + data.shape[axis], index))


@operator("Expand", host=(1,))
def _expand(_: Operator, x: Value, shape: Value) -> torch.Tensor:
    tensor = as_tensor(x)
    sizes = integers(shape)
    sizes = [1] * (tensor.dim() - len(sizes)) + sizes
    old = [1] * (len(sizes) - tensor.dim()) + list(tensor.shape)
    return tensor.expand([before if isinstance(new, int) and new == 1 else new for before, new in zip(old, sizes, strict=True)])  # fmt: skip  # noqa: E501


@operator("Tile", host=(1,))
def _tile(_: Operator, x: Value, repeats: Value) -> torch.Tensor:
    return as_tensor(x).repeat(*integers(repeats))


@operator("Cast")
def _cast(op: Operator, x: Value) -> torch.Tensor:
    return as_tensor(x).to(torch_type(op))


def torch_type(op: Operator) -> torch.dtype:
    """The torch type that a Cast leads to; raises CaptureError."""
    try:
        return torch.from_numpy(np.empty(0, tensor_dtype_to_np_dtype(op.get("to")))).dtype
    except (TypeError, KeyError) as error:
        raise op.refuse(f"casts to ONNX type {op.get('to')}, which has no torch form here") from error


@operator("CastLike")
def _cast_like(_: Operator, x: Value, like: Value) -> torch.Tensor:
    return as_tensor(x).to(as_tensor(like).dtype)


@operator("ConstantOfShape", host=(0,))
def _constant_of_shape(op: Operator, shape: Value) -> torch.Tensor:
    value = np.asarray(op.get("value", np.zeros(1, np.float32)))
    return torch.full(integers(shape), value.item(), dtype=as_tensor(value).dtype)


@operator("Range", host=(0, 1, 2))
def _range(_: Operator, start: Value, limit: Value, delta: Value) -> torch.Tensor:
    return torch.arange(integers(start)[0], integers(limit)[0], integers(delta)[0])


@operator("Trilu", host=(1,))
def _trilu(op: Operator, x: Value, k: Value = None) -> torch.Tensor:
    function = torch.triu if op.get("upper", 1) else torch.tril
    return function(as_tensor(x), 0 if k is None else integers(k)[0])


@operator("CumSum", host=(1,))
def _cumsum(op: Operator, x: Value, axis: Value) -> torch.Tensor:
    if op.get("exclusive", 0) or op.get("reverse", 0):
        raise op.refuse("is exclusive or reversed")
    return torch.cumsum(as_tensor(x), integers(axis)[0])


@operator("Pad", host=(1, 2, 3))
def _pad(op: Operator, x: Value, pads: Value = None, value: Value = None, axes: Value = None) -> torch.Tensor:
    tensor = as_tensor(x)
    amounts = list(op.get("pads", []) if pads is None else integers(pads))
    constant = op.get("value", 0.0) if value is None or not np.asarray(value).size else np.asarray(value).item()
    half = len(amounts) // 2
    dims = [axis % tensor.dim() for axis in (range(half) if axes is None else integers(axes))]
    by_dim = {dim: (amounts[position], amounts[half + position]) for position, dim in enumerate(dims)}
    flat = [amount for dim in reversed(range(tensor.dim())) for amount in by_dim.get(dim, (0, 0))]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        del flat[-2:]
    mode = op.get("mode", "constant")
    if mode == "constant":
        return F.pad(tensor, flat, value=constant)
    return F.pad(tensor, flat, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


@operator("DepthToSpace")
def _depth_to_space(op: Operator, x: torch.Tensor) -> torch.Tensor:
    size = op.get("blocksize")
    if op.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // size**2, height * size, width * size)


@operator("SpaceToDepth")
def _space_to_depth(op: Operator, x: torch.Tensor) -> torch.Tensor:
    size = op.get("blocksize")
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * size**2, height // size, width // size)
