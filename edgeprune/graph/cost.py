"""Cost of a graph: parameters, multiply-accumulates, peak activation memory. All estimates, none a latency."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch.fx import GraphModule, Node

from edgeprune.graph.macs import is_counted, macs_of
from edgeprune.graph.operators import operator_name, shape_of

__all__ = ["VIEWS", "Cost", "cost_of"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one inference at batch 1. `macs` counts multiply-accumulates of convolutions, matrix products, einsums,
    attention and recurrent layers; `uncounted` names the operators that may have others.

    `peak_activation_bytes` is the largest sum of activations that are alive at once in the graph's order
    (liveness; without the runtime's own buffers, fusion or reuse).
    """

    params: int
    macs: int
    peak_activation_bytes: int
    uncounted: tuple[str, ...] = ()


def cost_of(module: GraphModule) -> Cost:
    """Count on the shapes that the nodes carry in `meta["val"]`."""
    batch = _batch(module)
    params = sum(p.numel() for p in module.parameters())
    macs = sum(macs_of(node) for node in module.graph.nodes)
    uncounted = {operator_name(node) for node in module.graph.nodes if not is_counted(node)}
    return Cost(params, macs // batch, _peak(module) // batch, tuple(sorted(uncounted)))


def _batch(module: GraphModule) -> int:
    for node in module.graph.nodes:
        if node.op == "placeholder":
            shape = shape_of(node.meta["val"])
            return max(shape[0], 1) if shape else 1
    return 1


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
