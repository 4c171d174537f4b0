"""ONNX layers with weights: convolutions, products, normalisations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from edgeprune.graph.onnx_input.operators.table import Operator, Value, as_tensor, operator
from edgeprune.graph.onnx_input.operators.window import split_pads, window_of

__all__: list[str] = []

_CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("Conv")
def _conv(op: Operator, x: torch.Tensor, weight: Value, bias: Value = None) -> torch.Tensor:
    kernel = as_tensor(weight)
    window = window_of(op, x, tuple(kernel.shape[2:]))
    if len(window.kernel) not in _CONV:
        raise op.refuse(f"has {len(window.kernel)} spatial dimensions, not 1 to 3")
    padding, x = split_pads(x, window, 0.0)
    bias = None if bias is None else as_tensor(bias)
    result: torch.Tensor = _CONV[len(window.kernel)](
        x, kernel, bias, window.strides, padding, window.dilations, op.get("group", 1)
    )
    return result


@operator("ConvTranspose")
def _conv_transpose(op: Operator, x: torch.Tensor, weight: Value, bias: Value = None) -> torch.Tensor:
    kernel = as_tensor(weight)
    rank = x.dim() - 2
    strides, dilations = op.get("strides", [1] * rank), op.get("dilations", [1] * rank)
    extra = list(op.get("output_padding", [0] * rank))
    begin, end = _transposed_pads(op, x, kernel, extra)
    bias = None if bias is None else as_tensor(bias)
    convolve, group = _CONV_TRANSPOSE[rank], op.get("group", 1)
    if begin == end and all(value >= 0 for value in begin):
        same: torch.Tensor = convolve(x, kernel, bias, strides, begin, extra, group, dilations)
        return same
    # What torch cannot leave away at one end only is cut off (a negative pad adds, with the bias).
    if any(value < 0 for value in begin + end):
        raise op.refuse("its output_shape is larger than what the kernel reaches")
    full: torch.Tensor = convolve(x, kernel, bias, strides, 0, extra, group, dilations)
    for axis, (first, last) in enumerate(zip(begin, end, strict=True), start=2):
        full = full.narrow(axis, first, full.shape[axis] - first - last)
    return full


def _transposed_pads(
    op: Operator, x: torch.Tensor, kernel: torch.Tensor, extra: list[int]
) -> tuple[list[int], list[int]]:
    rank = x.dim() - 2
    strides, dilations = op.get("strides", [1] * rank), op.get("dilations", [1] * rank)
    auto = op.get("auto_pad", "NOTSET")
    shape = op.get("output_shape")
    if shape is None and auto in ("NOTSET", "VALID"):
        pads = op.get("pads", [0] * 2 * rank)
        return list(pads[:rank]), list(pads[rank:])
    if shape is None:
        shape = [x.shape[2 + axis] * strides[axis] for axis in range(rank)]
    begin, end = [], []
    for axis, size in enumerate(shape):
        reach = (kernel.shape[2 + axis] - 1) * dilations[axis] + 1
        total = strides[axis] * (x.shape[2 + axis] - 1) + extra[axis] + reach - size
        small, large = total // 2, total - total // 2
        begin.append(small if auto == "SAME_UPPER" else large)
        end.append(large if auto == "SAME_UPPER" else small)
    return begin, end


@operator("Gemm")
def _gemm(op: Operator, a: Value, b: Value, c: Value = None) -> torch.Tensor:
    x, weight = as_tensor(a), as_tensor(b)
    if op.get("transA", 0):
        x = x.t()
    alpha, beta = op.get("alpha", 1.0), op.get("beta", 1.0)
    bias = None if c is None else as_tensor(c)
    rows = weight if op.get("transB", 0) else weight.t()
    if alpha == 1.0 and (bias is None or (beta == 1.0 and bias.dim() == 1 and bias.shape[0] == rows.shape[0])):
        return F.linear(x, rows, bias)
    product: torch.Tensor = alpha * F.linear(x, rows)
    return product if bias is None else product + beta * bias


@operator("MatMul")
def _matmul(_: Operator, a: Value, b: Value) -> torch.Tensor:
    return torch.matmul(as_tensor(a), as_tensor(b))


@operator("Einsum")
def _einsum(op: Operator, *values: Value) -> torch.Tensor:
    return torch.einsum(op.get("equation"), [as_tensor(value) for value in values])


@operator("BatchNormalization")
def _batch_norm(op: Operator, x: torch.Tensor, *values: Value) -> torch.Tensor:
    scale, bias, mean, var = values
    if op.get("training_mode", 0):
        raise op.refuse("is in training mode", "export the model in evaluation mode")
    if op.get("spatial", 1) == 0:
        raise op.refuse("has spatial=0: statistics per position")
    return F.batch_norm(
        x,
        as_tensor(mean),
        as_tensor(var),
        as_tensor(scale),
        as_tensor(bias),
        training=False,
        momentum=1 - op.get("momentum", 0.9),
        eps=op.get("epsilon", 1e-5),
    )


@operator("LayerNormalization")
def _layer_norm(op: Operator, x: torch.Tensor, scale: Value, bias: Value = None) -> torch.Tensor:
    shape = list(x.shape[op.get("axis", -1) % x.dim() :])
    weight = as_tensor(scale)
    offset = None if bias is None else as_tensor(bias)
    eps = op.get("epsilon", 1e-5)
    if list(weight.shape) == shape and (offset is None or list(offset.shape) == shape):
        return F.layer_norm(x, shape, weight, offset, eps)
    scaled = F.layer_norm(x, shape, None, None, eps) * weight
    return scaled if offset is None else scaled + offset


@operator("GroupNormalization")
def _group_norm(op: Operator, x: torch.Tensor, scale: Value, bias: Value) -> torch.Tensor:
    # Version 18, with a scale per group, is deprecated: the checker refuses it.
    return F.group_norm(x, op.get("num_groups"), as_tensor(scale), as_tensor(bias), op.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def _instance_norm(op: Operator, x: torch.Tensor, scale: Value, bias: Value) -> torch.Tensor:
    return F.instance_norm(x, weight=as_tensor(scale), bias=as_tensor(bias), eps=op.get("epsilon", 1e-5))


@operator("LRN")
def _lrn(op: Operator, x: torch.Tensor) -> torch.Tensor:
    return F.local_response_norm(x, op.get("size"), op.get("alpha", 1e-4), op.get("beta", 0.75), op.get("bias", 1.0))


@operator("LpNormalization")
def _lp_normalization(op: Operator, x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, p=float(op.get("p", 2)), dim=op.get("axis", -1), eps=0.0)
