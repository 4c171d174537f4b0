"""Element-wise ONNX operators and activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from edgeprune.graph.onnx_input.operators.table import Operator, Value, as_tensor, operator

__all__: list[str] = []


def _operands(values: tuple[Value, ...]) -> list[Any]:
    """Tensors, and plain numbers where a constant of one element meets a tensor."""
    rank = max((value.dim() for value in values if isinstance(value, torch.Tensor)), default=-1)
    return [
        value.item() if isinstance(value, np.ndarray) and value.size == 1 and value.ndim <= rank else as_tensor(value)
        for value in values
    ]


def _divide(a: Any, b: Any) -> torch.Tensor:
    whole = all(isinstance(x, int) or (isinstance(x, torch.Tensor) and not x.is_floating_point()) for x in (a, b))
    return torch.div(_tensor(a, b), b, rounding_mode="trunc" if whole else None)


def _tensor(a: Any, like: torch.Tensor) -> torch.Tensor:
    return a if isinstance(a, torch.Tensor) else torch.full((), a, dtype=like.dtype)


def _minimum(a: Any, b: Any) -> torch.Tensor:
    if not isinstance(a, torch.Tensor):
        a, b = b, a
    return torch.minimum(a, b) if isinstance(b, torch.Tensor) else torch.clamp(a, max=b)


def _maximum(a: Any, b: Any) -> torch.Tensor:
    if not isinstance(a, torch.Tensor):
        a, b = b, a
    return torch.maximum(a, b) if isinstance(b, torch.Tensor) else torch.clamp(a, min=b)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Pow": lambda a, b: a**b,
    "Equal": lambda a, b: a == b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "And": lambda a, b: a & b,
    "Or": lambda a, b: a | b,
    "Xor": lambda a, b: a ^ b,
}
_MANY: dict[str, Callable[[Any, Any], Any]] = {"Sum": _BINARY["Add"], "Min": _minimum, "Max": _maximum}
_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Asin": torch.asin,
    "Atan": torch.atan,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def _binary(function: Callable[[Any, Any], Any], _: Operator, a: Value, b: Value) -> Any:
    return function(*_operands((a, b)))


def _many(function: Callable[[Any, Any], Any], _: Operator, *values: Value) -> Any:
    return reduce(function, _operands(values))


def _unary(function: Callable[[torch.Tensor], torch.Tensor], _: Operator, x: Value) -> torch.Tensor:
    return function(as_tensor(x))


for _kinds, _adapter in ((_BINARY, _binary), (_MANY, _many), (_UNARY, _unary)):
    for _kind, _function in _kinds.items():
        operator(_kind)(partial(_adapter, _function))  # type: ignore[arg-type]


@operator("Mean")
def _mean(_: Operator, *values: Value) -> torch.Tensor:
    total: torch.Tensor = reduce(lambda a, b: a + b, _operands(values))
    return total / len(values)


@operator("Mod")
def _mod(op: Operator, a: Value, b: Value) -> torch.Tensor:
    x, y = _operands((a, b))
    return torch.fmod(x, y) if op.get("fmod", 0) else torch.remainder(x, y)


@operator("Identity")
def _identity(_: Operator, x: Value) -> Value:
    return x


@operator("Dropout", host=(1, 2))
def _dropout(op: Operator, x: torch.Tensor, ratio: Value = None, training: Value = None) -> torch.Tensor:  # noqa: ARG001
    if training is not None and bool(np.asarray(training).item()):
        raise op.refuse("drops out in inference", "export the model in evaluation mode")
    return x


@operator("Clip", host=(1, 2))
def _clip(op: Operator, x: Value, low: Value = None, high: Value = None) -> torch.Tensor:
    limits = [
        np.asarray(value).item() if value is not None else op.get(name) for value, name in ((low, "min"), (high, "max"))
    ]
    return torch.clamp(as_tensor(x), *limits) if limits != [None, None] else as_tensor(x)


@operator("LeakyRelu")
def _leaky_relu(op: Operator, x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, op.get("alpha", 0.01))


@operator("Elu")
def _elu(op: Operator, x: torch.Tensor) -> torch.Tensor:
    return F.elu(x, op.get("alpha", 1.0))


@operator("Celu")
def _celu(op: Operator, x: torch.Tensor) -> torch.Tensor:
    return F.celu(x, op.get("alpha", 1.0))


@operator("Selu")
def _selu(op: Operator, x: torch.Tensor) -> torch.Tensor:
    alpha, gamma = op.get("alpha", 1.67326319217681884765625), op.get("gamma", 1.05070102214813232421875)
    scaled: torch.Tensor = gamma * F.elu(x, alpha)
    return scaled


@operator("ThresholdedRelu")
def _thresholded_relu(op: Operator, x: torch.Tensor) -> torch.Tensor:
    return F.threshold(x, op.get("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(op: Operator, x: torch.Tensor) -> torch.Tensor:
    alpha, beta = op.get("alpha", 0.2), op.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


@operator("Gelu")
def _gelu(op: Operator, x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate=op.get("approximate", "none"))


@operator("PRelu")
def _prelu(_: Operator, x: torch.Tensor, slope: Value) -> torch.Tensor:
    weight = as_tensor(slope)
    per_channel = weight.dim() == x.dim() - 1 and all(size == 1 for size in weight.shape[1:])
    if weight.numel() == 1 or (per_channel and x.dim() > 1 and weight.shape[0] == x.shape[1]):
        return F.prelu(x, weight.reshape(-1))
    return torch.where(x < 0, x * weight, x)


@operator("Where")
def _where(_: Operator, condition: Value, a: Value, b: Value) -> torch.Tensor:
    return torch.where(as_tensor(condition), as_tensor(a), as_tensor(b))


@operator("Softmax", "LogSoftmax")
def _softmax(op: Operator, x: torch.Tensor) -> torch.Tensor:
    function = F.softmax if op.kind == "Softmax" else F.log_softmax
    if op.opset >= 13:
        return function(x, dim=op.get("axis", -1))
    axis = op.get("axis", 1) % x.dim()
    # Before opset 13 all dimensions from the axis on are one.
    return function(x, dim=axis) if axis == x.dim() - 1 else function(x.flatten(axis), dim=axis).reshape(x.shape)
