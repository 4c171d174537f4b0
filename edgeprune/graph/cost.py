"""Cost of a graph: parameters, multiply-accumulates, peak activation memory. All estimates, none a latency."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeprune.graph.operators import operator_name, shape_of

__all__ = ["VIEWS", "Cost", "cost_of", "macs_of"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one inference at batch 1. `macs` counts multiply-accumulates of convolutions, matrix products, einsums,
    attention and recurrent layers.

    `peak_activation_bytes` is the largest sum of activations that are alive at once in the graph's order
    (liveness; without the runtime's own buffers, fusion or reuse).
    """

    params: int
    macs: int
    peak_activation_bytes: int


def cost_of(module: GraphModule) -> Cost:
    """Count on the shapes that the nodes carry in `meta["val"]`."""
    batch = _batch(module)
    params = sum(p.numel() for p in module.parameters())
    macs = sum(macs_of(node) for node in module.graph.nodes if node.op == "call_function")
    return Cost(params, macs // batch, _peak(module) // batch)


def _batch(module: GraphModule) -> int:
    for node in module.graph.nodes:
        if node.op == "placeholder":
            shape = shape_of(node.meta["val"])
            return max(shape[0], 1) if shape else 1
    return 1


def _shape(argument: Any) -> tuple[int, ...]:
    return shape_of(argument.meta["val"]) if isinstance(argument, Node) else ()


def macs_of(node: Node) -> int:
    """Multiply-accumulates of one node at the batch that the graph was captured with."""
    name = operator_name(node)
    value = node.meta.get("val")
    if name in _RECURRENT or name.removesuffix("_cell") in _RECURRENT:
        return _recurrent(node)
    if not isinstance(value, torch.Tensor):
        return 0
    output = shape_of(value)
    if name.startswith("conv") and name[4:5].isdigit():
        return prod(output) * prod(_shape(node.args[1])[1:])
    if name.startswith("conv_transpose"):
        return prod(_shape(node.args[0])) * prod(_shape(node.args[1])[1:])
    if name == "linear":
        return prod(output) * _shape(node.args[1])[1]
    if name in ("matmul", "bmm", "mm"):
        return prod(output) * _shape(node.args[0])[-1]
    if name in ("mv", "dot", "vdot"):
        return prod(_shape(node.args[0]))
    if name in ("addmm", "baddbmm"):
        return prod(output) * _shape(node.args[1])[-1]
    if name == "scaled_dot_product_attention":
        query, key = _shape(node.args[0]), _shape(node.args[1])
        scores = prod(query[:-1]) * key[-2]
        return scores * query[-1] + scores * output[-1]
    if name == "einsum":
        return _einsum(str(node.args[0]), [_shape(operand) for operand in node.args[1]])  # type: ignore[union-attr]
    if name == "tensordot":
        shape = _shape(node.args[0])
        return prod(output) * prod(shape[int(dim)] for dim in node.args[2])  # type: ignore[union-attr, arg-type, misc]
    if name == "bilinear":
        return prod(output) * prod(_shape(node.args[2])[1:])
    return 0


_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def _recurrent(node: Node) -> int:
    """Each weight matrix multiplies once in each step of each example; layers and directions have their own."""
    steps = prod(_shape(node.args[0])[:-1])
    weights = {id(n): n for argument in node.args[1:] for n in _nodes(argument) if n.op == "get_attr"}
    shapes = [_shape(weight) for weight in weights.values() if "val" in weight.meta]
    return steps * sum(prod(shape) for shape in shapes if len(shape) == 2)


def _nodes(argument: Any) -> list[Node]:
    return (
        [argument]
        if isinstance(argument, Node)
        else [node for item in (argument if isinstance(argument, list | tuple) else ()) for node in _nodes(item)]
    )


def _einsum(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """The operands in turn, from the left: each product runs over all letters of both sides.

    What the later operands and the output do not have is summed over as soon as it can be.
    """
    inputs, _, output = equation.replace(" ", "").partition("->")
    names = [_letters(part, len(shape)) for part, shape in zip(inputs.split(","), shapes, strict=True)]
    sizes: dict[str, int] = {}
    for letters, shape in zip(names, shapes, strict=True):
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    kept = set(output) if "->" in equation else {x for x in sizes if sum(letters.count(x) for letters in names) == 1}
    kept |= {letter for letter in sizes if letter.startswith("...")}
    total, left = 0, set(names[0])
    for i, letters in enumerate(names[1:], 1):
        left |= set(letters)
        total += prod(sizes[letter] for letter in left)
        left &= kept.union(*names[i + 1 :])
    return total


def _letters(part: str, ndim: int) -> list[str]:
    """One name per dimension; those of an ellipsis are counted from its end."""
    before, dots, after = part.partition("...")
    if not dots:
        return list(part)
    hidden = ndim - len(before) - len(after)
    return [*before, *(f"...{hidden - i}" for i in range(hidden)), *after]


# These return a view of their first argument: no memory of their own.
VIEWS = frozenset([
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t", "squeeze", "unsqueeze"),
    *("expand", "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "getitem"),
    *("detach", "alias", "dropout", "contiguous"),
])  # fmt: skip


def _peak(module: GraphModule) -> int:
    nodes = list(module.graph.nodes)
    base: dict[Node, Node] = {}
    for node in nodes:
        source = node.args[0] if node.args and isinstance(node.args[0], Node) else None
        name = operator_name(node) if node.op == "call_function" else ""
        base[node] = base[source] if name in VIEWS and source is not None else node
    last = {node: i for i, node in enumerate(nodes)}
    for i, node in enumerate(nodes):
        for used in node.all_input_nodes:
            last[base[used]] = max(last[base[used]], i)
    ends: dict[int, list[Node]] = {}
    for node, end in last.items():
        ends.setdefault(end, []).append(node)
    alive = peak = 0
    for i, node in enumerate(nodes):
        if base[node] is node:
            alive += _bytes(node)
        peak = max(peak, alive)
        alive -= sum(_bytes(done) for done in ends.get(i, ()) if base[done] is done)
    return peak


def _bytes(node: Node) -> int:
    if node.op not in ("call_function", "placeholder"):
        return 0
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return sum(prod(shape_of(v)) * v.element_size() for v in values if isinstance(v, torch.Tensor))
