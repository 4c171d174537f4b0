"""What is left of a random network when units are removed, computed on its dense tensors and without the engine.

Each tensor carries a mask of the elements that are gone: movements move the mask as they move the values, contractions
leave out what is gone, normalisations and reductions are computed over the rest. Of the engine it takes only which
indices of which parameters a candidate removes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.random_nets import CONTRACTIONS, ELEMENTWISE, MOVES, POOLS, REDUCTIONS, UNIFORM, Network, Step

Gone = Mapping[str, Tensor]  # parameter -> True where an element is removed


class Cut(NamedTuple):
    """A dense tensor and which of its elements are gone."""

    data: Tensor
    gone: Tensor

    @property
    def left(self) -> Tensor:
        return self.data.masked_fill(self.gone, 0)

    @property
    def alive(self) -> Tensor:
        return (~self.gone).to(self.data.dtype)


def reference(network: Network, gone: Gone, inputs: Sequence[Tensor]) -> list[Cut]:
    """The outputs when the marked parameter elements are gone."""
    values = [Cut(x, torch.zeros(x.shape, dtype=torch.bool)) for x in inputs]
    for step in network.program.steps:
        layer = {}
        if step.layer:
            module = getattr(network, step.layer)
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                mask = gone.get(f"{step.layer}.{name}")
                layer[name] = Cut(
                    tensor.detach(), torch.zeros(tensor.shape, dtype=torch.bool) if mask is None else mask
                )
        values.append(_cut(step, [values[i] for i in step.inputs], layer, network))
    return [values[i] for i in network.program.outputs]


def _cut(step: Step, given: list[Cut], layer: dict[str, Cut], network: Network) -> Cut:  # noqa: PLR0912
    op, settings = step.op, step.settings
    x = given[0]
    data, masks = [v.data for v in given], [v.gone.double() for v in given]
    if op in ("index", "index_select"):
        table = layer["table"].data
        return Cut(MOVES[op](x.data, table, *settings), MOVES[op](x.gone, table, *settings))
    if op in MOVES:
        if op == "pad":
            return Cut(MOVES[op](*data, *settings), _padded(x.gone, settings[0]))
        return Cut(MOVES[op](*data, *settings), MOVES[op](*masks, *settings) > 0.5)
    if op in ELEMENTWISE:
        return _met(ELEMENTWISE[op](*data, *settings), *given)
    if op.removesuffix("_constant") in ELEMENTWISE:
        other = layer[settings[0]]
        return _met(ELEMENTWISE[op.removesuffix("_constant")](x.data, other.data), x, other)
    if op in UNIFORM:
        d = settings[0]
        assert torch.equal(x.gone, x.gone.select(d, 0).unsqueeze(d).expand_as(x.gone)), f"{op} over what was removed"
        return Cut(UNIFORM[op](x.data, *settings), x.gone)
    if op in POOLS:
        return Cut(POOLS[op](x.data), POOLS[op](masks[0]) > 0.5)
    if op in CONTRACTIONS:
        result = _contracted(CONTRACTIONS[op], *(given if "weight" not in layer else (x, layer["weight"])), *settings)
        if "bias" not in layer:
            return result
        shape = [1] * result.data.dim()
        shape[-1 if op == "linear" else 1] = -1
        bias = Cut(layer["bias"].data.reshape(shape), layer["bias"].gone.reshape(shape))
        return _met(result.data + bias.data, result, bias)
    if op in REDUCTIONS:
        return _reduced(op, x, *settings)
    if op == "fold":
        return Cut(F.fold(x.left, *settings), F.fold(masks[0], *settings) > 0.5)
    if op == "glu":
        first, second = zip(x.data.chunk(2, settings[0]), x.gone.chunk(2, settings[0]), strict=True)
        return _met(first[0] * second[0].sigmoid(), Cut(*first), Cut(*second))
    if op == "prelu":
        shape = [1, -1] + [1] * (x.data.dim() - 2)
        slope = Cut(layer["weight"].data.reshape(shape), layer["weight"].gone.reshape(shape))
        return _met(torch.where(x.data > 0, x.data, slope.data * x.data), x, slope)
    if op == "attention":
        return _attended(*given, layer.get("mask"), *settings)
    if op == "embedding":
        weight = layer["weight"]
        return Cut(F.embedding(x.data, weight.data), F.embedding(x.data, weight.gone.double()) > 0.5)
    if op == "recurrent":
        return _recurrent(x, layer, getattr(network, step.layer))
    if op == "batch_norm":
        each = {n: Cut(*(t.reshape([1, -1] + [1] * (x.data.dim() - 2)) for t in v)) for n, v in layer.items()}
        mean, var, w, b = (each[n] for n in ("running_mean", "running_var", "weight", "bias"))
        return _met((x.data - mean.data) / (var.data + 1e-5).sqrt() * w.data + b.data, x, mean, var, w, b)
    if op in ("layer_norm", "rms_norm"):
        scale = {name: value for name, value in layer.items() if name == "weight" or op == "layer_norm"}
        return _normalised(x, [x.data.dim() - 1], scale, x.data.dim() - 1, centred=op == "layer_norm")
    if op in ("group_norm", "instance_norm"):
        groups = settings[0] if settings else x.data.shape[1]
        split = Cut(*(t.reshape(t.shape[0], groups, -1) for t in x))
        flat = _normalised(split, [2], {}, 2, centred=True)
        normal = Cut(*(t.reshape(x.data.shape) for t in flat))
        return _scaled(normal, layer, 1)
    raise AssertionError(op)


def _padded(gone: Tensor, pad: tuple[int, ...]) -> Tensor:
    """What is put beside is gone where all beside it is."""
    dim = gone.dim() - len(pad) // 2
    around = F.pad(gone.double(), pad, value=-1)
    return torch.where(around < 0, gone.all(dim, keepdim=True).double(), around) > 0.5


def _met(data: Tensor, *given: Cut) -> Cut:
    gone = torch.zeros(data.shape, dtype=torch.bool)
    for value in given:
        gone = gone | value.gone
    return Cut(data, gone)


def _contracted(fn: Callable[..., Tensor], a: Cut, b: Cut, *settings: Any) -> Cut:
    """Gone is an element of which no term is left."""
    terms = fn(a.alive, b.alive, *settings)
    everything = fn(torch.ones_like(a.data), torch.ones_like(b.data), *settings)
    return Cut(fn(a.left, b.left, *settings), (terms < 0.5) & (everything > 0.5))


def _reduced(op: str, x: Cut, dims: Sequence[int], keep: bool) -> Cut:
    count = x.alive.sum(dims, keepdim=True)
    some = count.clamp(min=1)
    mean = x.left.sum(dims, keepdim=True) / some
    low = x.data.masked_fill(x.gone, -math.inf)
    value = {
        "mean": lambda: mean,
        "sum": lambda: mean * some,
        "amax": lambda: low.amax(dims, keepdim=True),
        "var": lambda: ((x.data - mean) * x.alive).square().sum(dims, keepdim=True) / some,
        "norm": lambda: x.left.square().sum(dims, keepdim=True).sqrt(),
        "logsumexp": lambda: low.exp().sum(dims, keepdim=True).log(),
    }[op]()
    gone = count == 0
    value = value.masked_fill(gone, 0)
    return Cut(*(t if keep else t.squeeze(tuple(dims)) for t in (value, gone)))


def _normalised(x: Cut, dims: list[int], layer: dict[str, Cut], dim: int, *, centred: bool) -> Cut:
    count = x.alive.sum(dims, keepdim=True).clamp(min=1)
    mean = x.left.sum(dims, keepdim=True) / count if centred else 0
    moment = ((x.data - mean) * x.alive).square().sum(dims, keepdim=True) / count
    return _scaled(Cut((x.data - mean) / (moment + 1e-5).sqrt(), x.gone), layer, dim)


def _scaled(x: Cut, layer: dict[str, Cut], dim: int) -> Cut:
    shape = [1] * x.data.dim()
    shape[dim] = -1
    for name, value in layer.items():
        shaped = Cut(value.data.reshape(shape), value.gone.reshape(shape))
        x = _met(x.data * shaped.data if name == "weight" else x.data + shaped.data, x, shaped)
    return x


def _attended(q: Cut, k: Cut, v: Cut, mask: Cut | None, causal: bool) -> Cut:
    times = q.data.shape[1] // k.data.shape[1]
    k, v = (Cut(*(t.repeat_interleave(times, 1) for t in value)) for value in (k, v))
    scores = _contracted(lambda a, b: a @ b.transpose(-1, -2), q, k)
    data = scores.data / math.sqrt(q.data.shape[-1])
    if mask is not None:
        data, scores = data + mask.data, _met(scores.data, scores, mask)
    if causal:
        data = data.masked_fill(torch.ones(data.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    return _contracted(torch.matmul, Cut(data.softmax(-1), scores.gone), v)


def _recurrent(x: Cut, layer: dict[str, Cut], module: nn.Module) -> Cut:
    weights = {name: value.left for name, value in layer.items()}
    data = torch.func.functional_call(module, weights, (x.left,))[0]
    gone = [value.gone.all(0) for name, value in layer.items() if name.startswith("weight_hh")]
    last = torch.cat(gone[-2:] if module.bidirectional else gone[-1:])
    return Cut(data, last.expand(data.shape).clone())
