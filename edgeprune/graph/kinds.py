"""What kind of operator a call is, for its cost: its class, its settings, the sizes that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any, Literal

import torch
from torch.fx import Node

from edgeprune.graph.call import Call
from edgeprune.graph.cost import VIEWS
from edgeprune.graph.labels import Labels
from edgeprune.graph.sizes import Shape, Size, product

__all__ = ["CONTRACTIONS", "Kind", "activation_of", "computes", "dims_of", "kind_of", "operands_of", "settings_of"]

Kind = Literal[
    "conv", "depthwise", "grouped", "conv_transpose", "linear", "matmul", "attention", "norm",
    "pool", "elementwise", "softmax", "reduce", "movement", "resize", "recurrent", "other",
]  # fmt: skip
CONTRACTIONS: frozenset[str] = frozenset(["conv", "depthwise", "grouped", "conv_transpose", "linear", "matmul"])

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm", "addbmm", "einsum"), "matmul"),
    **dict.fromkeys(("tensordot", "inner", "linalg_matmul", "linalg_vecdot", "vdot", "bilinear"), "matmul"),
    "linear": "linear",
    "scaled_dot_product_attention": "attention",
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"), "norm"),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "native_layer_norm", "native_group_norm"), "norm"),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax", "_safe_softmax"), "softmax"),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std", "prod", "argmax", "argmin"), "reduce"),
    **dict.fromkeys(("logsumexp", "linalg_vector_norm", "any", "all", "cumsum", "var_mean"), "reduce"),
    **dict.fromkeys(("cat", "concat", "stack", "pad", "constant_pad_nd", "roll", "flip", "repeat", "tile"), "movement"),
    **dict.fromkeys(("index", "index_select", "gather", "embedding", "pixel_shuffle", "channel_shuffle"), "movement"),
    **dict.fromkeys(("permute", "transpose", "t", "movedim", "swapaxes", "expand", "broadcast_to"), "movement"),
    **dict.fromkeys(("slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind"), "movement"),
    **dict.fromkeys(("reflection_pad2d", "replication_pad2d", "pixel_unshuffle", "repeat_interleave"), "movement"),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"), "recurrent"),
}
_ORDER = ("permute", "transpose", "t", "movedim", "swapaxes")
_SAME = frozenset([*("clone", "lift_fresh_copy", "alias", "detach_", "dropout_", "feature_dropout", "lift_fresh")])


def kind_of(call: Call) -> Kind:
    """The class of an operator that `computes`."""
    name = call.name.rstrip("_")
    if name.startswith(("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "conv_transpose")):
        if name.startswith("conv_transpose") or call.get("transposed"):
            return "conv_transpose"
        groups = int(call.get("groups", 1))
        if groups == 1:
            return "conv"
        return "depthwise" if call["weight"].shape[1] == 1 else "grouped"
    if name in _KINDS:
        return _KINDS[name]
    if "pool" in name:
        return "pool"
    if name.startswith(("upsample", "_upsample", "interpolate")):
        return "resize"
    return "elementwise" if torch.Tag.pointwise in call.node.target.tags else "other"  # type: ignore[union-attr]


def computes(call: Call, result: Any) -> bool:
    """Whether the operator computes or copies; a view or a size does not, nor does what changes nothing."""
    results = result if isinstance(result, list | tuple) else [result]
    if not any(isinstance(item, Labels) for item in results) or call.name in _SAME:
        return False
    source = next((labels for _, labels in call.tensors()), None)
    if source is None or (call.name not in VIEWS and call.name not in _KINDS):
        return True
    if call.name in _ORDER:
        return _moves(source.shape, call)
    if call.name in ("expand", "broadcast_to", "slice", "select", "narrow"):
        return prod(source.shape) != prod(call.shape)
    if call.name in ("split", "split_with_sizes", "chunk", "unbind"):
        return len(results) > 1
    return call.name not in VIEWS


def _moves(shape: Sequence[int], call: Call) -> bool:
    """Whether a change of the order of dimensions changes that of the elements."""
    value = call.arguments
    order = list(range(len(shape)))
    if call.name == "permute":
        order = [int(d) % len(shape) for d in value["dims"]]
    elif call.name in ("transpose", "swapaxes"):
        first, second = (int(d) % len(shape) for d in [v for v in value.values() if isinstance(v, int)][:2])
        order[first], order[second] = second, first
    else:
        return True
    long = [d for d in order if shape[d] > 1]
    return long != sorted(long)


def activation_of(call: Call) -> str:
    """The name of an activation function, with its bounds where they are not usual; "" of anything else."""
    name = call.name.rstrip("_")
    if name in ("hardtanh", "clamp", "clip"):
        low = call.get("min_val", call.get("min"))
        high = call.get("max_val", call.get("max"))
        if isinstance(low, Labels) or isinstance(high, Labels):
            return ""
        return {(0, 6): "relu6", (0, None): "relu"}.get((low, high), f"clip({low}, {high})")
    if name == "leaky_relu":
        return f"leaky_relu({call.get('negative_slope', 0.01)})"
    plain = ("relu", "relu6", "silu", "hardswish", "hardsigmoid", "gelu", "sigmoid", "tanh", "elu", "mish", "softplus")
    return name if name in plain else ""


_LITERALS = frozenset([
    *("size", "shape", "pad", "split_sizes", "split_size", "sizes", "normalized_shape", "start", "end", "length"),
    *("indices", "cudnn_enabled", "training", "train", "momentum", "groups", "num_groups", "dtype", "allow_tf32"),
])  # fmt: skip


def settings_of(call: Call, weight: Shape, source: Shape) -> tuple[tuple[str, Any], ...]:
    """What the operator is told besides its tensors; sizes that follow from theirs are left out."""
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in call.arguments.items()
        if name not in _LITERALS and _is_plain(value)
    }
    if "groups" in call.arguments and weight:
        settings = {"kernel": tuple(size.at() for size in weight[2:]), **settings}
        settings["bias"] = isinstance(call.get("bias"), Labels)
        settings["groups"] = _groups(int(call["groups"]), weight, source)
    if "num_groups" in call.arguments and source:
        settings["groups"] = int(call["num_groups"])
    return tuple(settings.items())


def _groups(groups: int, weight: Shape, source: Shape) -> Size | int:
    """The number of groups, where channels per group stay as they are: that of the groups that are left."""
    channels = source[1 - len(weight)] if groups > 1 else None
    if channels is None or not channels.groups or weight[1].groups:
        return groups
    each = channels.at() // groups
    terms = {key: Fraction(value) / each for key, value in channels.terms}
    whole = all(value.denominator == 1 for value in terms.values())
    return Size.of({k: int(v) for k, v in terms.items()}, channels.units, channels.exact) if whole else groups


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(item, int | float | str | bool) for item in value)
    return isinstance(value, int | float | str | bool)


def dims_of(kind: Kind, operands: Mapping[str, Shape], output: Shape) -> dict[str, Size]:
    """The sizes that decide what a contraction costs; of its operands by name."""
    if kind in ("conv", "depthwise", "grouped", "conv_transpose"):
        channels = 1 - len(operands["weight"])  # from the end
        return {"inputs": operands["input"][channels], "outputs": output[channels]}
    if kind == "linear":
        source = operands["input"]
        return {"rows": product(source[:-1]), "inputs": source[-1], "outputs": output[-1]}
    if kind == "attention":
        query, key = operands["query"], operands["key"]
        sizes = {"batch": product(query[:-3]), "heads": product(query[-3:-2])}
        return {**sizes, "queries": query[-2], "keys": key[-2], "head": query[-1], "value": output[-1]}
    left = next((operands[name] for name in ("mat1", "batch1", "self") if name in operands), ())
    if kind == "matmul" and len(output) >= 2 and left and "dims_self" not in operands:
        return {"batch": product(output[:-2]), "rows": output[-2], "inner": left[-1], "columns": output[-1]}
    return {}


def operands_of(node: Node) -> list[Node]:
    """The nodes among the arguments, in order; one that is given twice comes twice."""
    found: list[Node] = []
    waiting: list[Any] = [*reversed([*node.args, *node.kwargs.values()])]
    while waiting:
        argument = waiting.pop()
        if isinstance(argument, Node):
            found.append(argument)
        elif isinstance(argument, list | tuple):
            waiting.extend(reversed(argument))
    return found
