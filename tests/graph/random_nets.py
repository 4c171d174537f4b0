"""Random networks as programs: lists of steps that `Network` runs with torch's operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: `inputs` are numbers of earlier values; `layer` holds its parameters."""

    op: str
    inputs: tuple[int, ...]
    settings: tuple[Any, ...] = ()
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """Inputs are values 0, 1 …; every step appends one. `layers` are kinds with their sizes."""

    inputs: tuple[tuple[int, ...], ...]  # shapes with the batch
    steps: tuple[Step, ...]
    layers: Mapping[str, tuple[Any, ...]]
    outputs: tuple[int, ...]


# Operators that copy elements: the mask goes the same way.


def _slice(x: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor:
    return x[(slice(None),) * dim + (slice(start, stop, step),)]


def _viewed(x: Tensor, form: str, sizes: tuple[int, ...]) -> Tensor:
    if form == "inferred":  # the batch is written out, one size is not
        return x.reshape(x.shape[0], -1, *sizes[1:])
    if form == "batch":
        return x.reshape(-1, *sizes)
    return x.contiguous().view(x.shape[0], *sizes)


def _assigned(x: Tensor, y: Tensor, dim: int, start: int, stop: int) -> Tensor:
    z = x.clone()
    at = (slice(None),) * dim + (slice(start, stop),)
    z[at] = y[at]
    return z


def _shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, *rest = x.shape
    return x.view(n, groups, c // groups, *rest).transpose(1, 2).reshape(n, c, *rest)


def _unbound(x: Tensor, dim: int, order: tuple[int, ...]) -> Tensor:
    parts = x.unbind(dim)
    return torch.stack([parts[i] for i in order], dim)


def _split(x: Tensor, dim: int, sizes: tuple[int, ...], order: tuple[int, ...]) -> Tensor:
    parts = x.split(list(sizes), dim)
    return torch.cat([parts[i] for i in order], dim) if len(order) > 1 else parts[order[0]]


def _chunk(x: Tensor, dim: int, count: int, order: tuple[int, ...]) -> Tensor:
    parts = x.chunk(count, dim)
    return torch.cat([parts[i] for i in order], dim) if len(order) > 1 else parts[order[0]]


MOVES: dict[str, Callable[..., Tensor]] = {
    "permute": lambda x, order: x.permute(order),
    "transpose": lambda x, a, b: x.transpose(a, b),
    "movedim": lambda x, a, b: x.movedim(a, b),
    "view": _viewed,
    "flatten": lambda x, a, b: x.flatten(a, b),
    "unflatten": lambda x, d, sizes: x.unflatten(d, sizes),
    "unsqueeze": lambda x, d: x.unsqueeze(d),
    "squeeze": lambda x, d: x.squeeze(d),
    "flip": lambda x, dims: x.flip(dims),
    "roll": lambda x, shift, dim: x.roll(shift, dim),
    "slice": _slice,
    "narrow": lambda x, d, start, length: x.narrow(d, start, length),
    "select": lambda x, d, i: x.select(d, i),
    "pad": lambda x, pad, value: F.pad(x, pad, value=value),
    "repeat": lambda x, times: x.repeat(times),
    "repeat_interleave": lambda x, times, d: x.repeat_interleave(times, d),
    "expand": lambda x, d, n: x.unsqueeze(d).expand(*x.shape[:d], n, *x.shape[d:]),
    "pixel_shuffle": F.pixel_shuffle,
    "pixel_unshuffle": F.pixel_unshuffle,
    "channel_shuffle": _shuffle,
    "unfold": F.unfold,
    "windows": lambda x, d, size, step: x.unfold(d, size, step),
    "split": _split,
    "chunk": _chunk,
    "unbind": _unbound,
    "cat": lambda *given: torch.cat(given[:-1], given[-1]),
    "stack": lambda *given: torch.stack(given[:-1], given[-1]),
    "assign": _assigned,
    "index": lambda x, table, d: x[(slice(None),) * d + (table,)],
    "index_select": lambda x, table, d: x.index_select(d, table),
}

# Element-wise: what meets is gone together.

ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "relu": F.relu,
    "relu_": lambda x: F.relu_(x.clone()),
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "cos": torch.cos,
    "shift": lambda x: 2 * x + 1,
    "clamp": lambda x: x.clamp(-0.5, 1.0),
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "square": lambda x: x.square(),
    "positive": lambda x: (x > 0).to(x.dtype),
    "clone": lambda x: x.clone(),
    "zeros_like": lambda x: x + torch.zeros_like(x) + torch.full_like(x, 0.25),
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "maximum": torch.maximum,
    "add_": lambda x, y: (x.clone() + 0 * y).add_(y),
    "divide": lambda x, y: x / (1 + y * y),
    "where": lambda x, y: torch.where(y > 0.1, x, y),
    "masked_fill": lambda x, y: x.masked_fill(y > 0.2, 0.5),
    "addcmul": lambda x, y: torch.addcmul(x, y, x, value=0.5),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
}
UNARY = (
    *("relu", "relu_", "gelu", "sigmoid", "cos", "shift", "clamp"),
    *("hardswish", "softplus", "square", "positive", "clone", "zeros_like"),
)
BINARY = [name for name in ELEMENTWISE if name not in UNARY]

# Per channel or window: the mask is the same along what they mix.

UNIFORM: dict[str, Callable[..., Tensor]] = {
    "softmax": lambda x, d: x.softmax(d),
    "cumsum": lambda x, d: x.cumsum(d),
    "sort": lambda x, d: x.sort(d).values,
}
POOLS: dict[str, Callable[..., Tensor]] = {
    "max_pool": lambda x: (F.max_pool2d if x.dim() == 4 else F.max_pool1d)(x, 2),
    "avg_pool": lambda x: (F.avg_pool2d if x.dim() == 4 else F.avg_pool1d)(x, 2),
    "adaptive": lambda x: (F.adaptive_avg_pool2d if x.dim() == 4 else F.adaptive_avg_pool1d)(x, 1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "linear_resize": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear" if x.dim() == 4 else "linear"),
    "reflect": lambda x: F.pad(x, (1, 1) * (x.dim() - 2), mode="reflect"),
}

# Contractions of two tensors.

CONTRACTIONS: dict[str, Callable[..., Tensor]] = {
    "linear": F.linear,
    "conv1d": lambda x, w, *s: F.conv1d(x, w, None, *s),
    "conv2d": lambda x, w, *s: F.conv2d(x, w, None, *s),
    "conv_transpose1d": lambda x, w, stride, groups: F.conv_transpose1d(x, w, None, stride, groups=groups),
    "conv_transpose2d": lambda x, w, stride, groups: F.conv_transpose2d(x, w, None, stride, groups=groups),
    "matmul": torch.matmul,
    "matmul_parameter": torch.matmul,
    "bmm": torch.bmm,
    "scores": lambda q, k: q @ k.transpose(-1, -2),
    "einsum": lambda x, y, equation: torch.einsum(equation, x, y),
    "einsum_parameter": lambda x, w, equation: torch.einsum(equation, x, w),
}
_BIASED = {
    "linear": F.linear,
    "conv1d": F.conv1d,
    "conv2d": F.conv2d,
    "conv_transpose1d": lambda x, w, b, stride, groups: F.conv_transpose1d(x, w, b, stride, groups=groups),
    "conv_transpose2d": lambda x, w, b, stride, groups: F.conv_transpose2d(x, w, b, stride, groups=groups),
}

REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean": lambda x, dims, keep: x.mean(dims, keepdim=keep),
    "sum": lambda x, dims, keep: x.sum(dims, keepdim=keep),
    "amax": lambda x, dims, keep: x.amax(dims, keepdim=keep),
    "var": lambda x, dims, keep: x.var(dims, correction=0, keepdim=keep),
    "norm": lambda x, dims, keep: torch.linalg.vector_norm(x, dim=dims, keepdim=keep),
    "logsumexp": lambda x, dims, keep: x.logsumexp(dims, keepdim=keep),
}


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


# Running a program as it is


class Layer(nn.Module):
    """Parameters and buffers by name."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            if name in {"running_mean", "running_var", "buffer", "table", "mask"}:
                self.register_buffer(name, tensor)
            else:
                self.register_parameter(name, nn.Parameter(tensor))

    def forward(self) -> None:
        raise NotImplementedError


def make_layer(kind: str, *sizes: Any) -> nn.Module:
    if kind in ("LSTM", "GRU", "RNN"):
        width, hidden, layers, bidirectional = sizes
        return getattr(nn, kind)(width, hidden, layers, bidirectional=bidirectional, batch_first=True)
    if kind == "weights":  # weight shape, bias
        shape, bias = sizes
        fan = max(1, math.prod(shape[1:]))
        tensors = {"weight": torch.randn(shape) / math.sqrt(fan)}
        return Layer(**tensors, **({"bias": torch.randn(bias)} if bias else {}))
    if kind == "scale":
        (n,) = sizes
        return Layer(weight=torch.rand(n) + 0.5, bias=torch.randn(n))
    if kind == "batch_norm":
        (n,) = sizes
        return Layer(
            weight=torch.rand(n) + 0.5,
            bias=torch.randn(n),
            running_mean=torch.randn(n),
            running_var=torch.rand(n) + 0.5,
        )
    if kind == "table":
        return Layer(table=torch.tensor(sizes[0]))
    if kind == "mask":
        return Layer(mask=torch.randn(sizes[0]))
    if kind == "buffer":
        return Layer(buffer=torch.randn(sizes[0]))
    raise AssertionError(kind)


class Network(nn.Module):
    """A program with its parameters; runs it with torch's operators."""

    def __init__(self, program: Program, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.program = program
        for name, made in program.layers.items():
            setattr(self, name, make_layer(*made))
        self.double().eval()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = list(inputs)
        for step in self.program.steps:
            layer = getattr(self, step.layer) if step.layer else None
            values.append(run(step, [values[i] for i in step.inputs], layer))
        outputs = tuple(values[i] for i in self.program.outputs)
        return outputs if len(outputs) > 1 else outputs[0]


def run(step: Step, given: list[Tensor], layer: Any = None) -> Tensor:  # noqa: PLR0912  a table
    op, settings = step.op, step.settings
    if op in ("index", "index_select"):
        return MOVES[op](given[0], layer.table, *settings)
    if op in MOVES:
        return MOVES[op](*given, *settings)
    if op in ELEMENTWISE:
        return ELEMENTWISE[op](*given, *settings)
    if op.removesuffix("_constant") in ELEMENTWISE:
        return ELEMENTWISE[op.removesuffix("_constant")](given[0], getattr(layer, settings[0]))
    if op in UNIFORM:
        return UNIFORM[op](*given, *settings)
    if op in POOLS:
        return POOLS[op](*given)
    if op in CONTRACTIONS:
        if layer is None:
            return CONTRACTIONS[op](*given, *settings)
        if getattr(layer, "bias", None) is not None:
            return _BIASED[op](given[0], layer.weight, layer.bias, *settings)
        return CONTRACTIONS[op](given[0], layer.weight, *settings)
    if op in REDUCTIONS:
        return REDUCTIONS[op](*given, *settings)
    if op == "fold":
        return F.fold(given[0], *settings)
    if op == "glu":
        return F.glu(given[0], settings[0])
    if op == "prelu":
        return F.prelu(given[0], layer.weight)
    if op == "attention":
        return _attention(*given, None if layer is None else layer.mask, *settings)
    if op == "embedding":
        return F.embedding(given[0], layer.weight)
    if op == "recurrent":
        return layer(given[0])[0]
    if op == "batch_norm":
        return F.batch_norm(
            given[0], layer.running_mean, layer.running_var, layer.weight, layer.bias, training=layer.training
        )
    if op == "layer_norm":
        return F.layer_norm(given[0], given[0].shape[-1:], layer.weight, layer.bias)
    if op == "rms_norm":
        return F.rms_norm(given[0], given[0].shape[-1:], layer.weight, 1e-5)
    if op == "group_norm":
        return F.group_norm(given[0], settings[0], layer.weight, layer.bias)
    if op == "instance_norm":
        return F.instance_norm(given[0], weight=layer.weight, bias=layer.bias)
    raise AssertionError(op)
