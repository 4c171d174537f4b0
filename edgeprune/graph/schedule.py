"""Which activations are alive at each step of a captured graph, with their sizes as functions of the kept units."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.fx import Node

from edgeprune.graph.cost import VIEWS
from edgeprune.graph.labels import Labels
from edgeprune.graph.operators import at_batch, is_operator, operator_name, schema_of
from edgeprune.graph.shapes import OperatorShape, block_gates, operator_shapes, sizes_at_one
from edgeprune.graph.sizes import Size, Sizes, product

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured

__all__ = ["Live", "Schedule", "Step", "schedule"]


@dataclass(frozen=True, slots=True)
class Live:
    """A tensor that is alive: its bytes, and the blocks of which any, when dropped, takes it away."""

    node: str
    bytes: Size
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """The tensors that are alive while a node is computed."""

    node: str
    live: tuple[Live, ...]

    def at(self, kept: Mapping[str, int] = MappingProxyType({}), dropped: Collection[str] = ()) -> int:
        """Bytes at so many kept units per group and without the dropped blocks."""
        return sum(tensor.bytes.at(kept) for tensor in self.live if set(dropped).isdisjoint(tensor.blocks))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of which one has the most bytes alive, whatever the widths.

    When a block is dropped, its own tensors vanish, and the tensor that skips it stays alive in place of the sum: the
    sum counts on (its size is the same), but not where the skipping tensor is alive for another reason as well.
    Where several blocks would have to be dropped for a tensor to vanish, it counts: never too little.
    """

    steps: tuple[Step, ...]

    def peak(self, kept: Mapping[str, int] = MappingProxyType({}), dropped: Collection[str] = ()) -> int:
        """The most bytes of activations alive at once, at batch 1."""
        return max((step.at(kept, dropped) for step in self.steps), default=0)


def schedule(captured: Captured, *, fused: bool = True) -> Schedule:
    """Liveness in the graph's order. With `fused`, element-wise work writes over its only reader's input.

    That is what runtimes do: an activation after a contraction or a normalisation, a batch-norm that is folded and an
    addition hold no second tensor. Without, each operator has a tensor of its own, as `Cost` counts.
    """
    sizes, batch = sizes_at_one(captured)
    shapes = {shape.node: shape for shape in operator_shapes(captured)} if fused else None
    graph = _Graph(captured, shapes)
    with at_batch(batch):
        bytes_of = {node: _bytes(node, sizes) for node in graph.nodes if graph.base[node] is node}
    return Schedule(_largest(_steps(graph, bytes_of)))


class _Graph:
    """The nodes in order, whose memory each one's value is in, and the blocks that they vanish with.

    `shapes` are the operators that may write over what they read; None where none may.
    """

    def __init__(self, captured: Captured, shapes: Mapping[str, OperatorShape] | None) -> None:
        self.nodes: list[Node] = list(captured.module.graph.nodes)
        self.fused = shapes is not None
        gates = block_gates(captured)
        self.gates = {node: frozenset(gates.get(node.name, ())) for node in self.nodes}
        named = {node.name: node for node in self.nodes}
        self.rest: dict[Node, tuple[Node, str]] = {}  # of an addition: what stays, and the block that goes
        for block in captured.blocks:
            addition = named[block.addition]
            rest = addition.args[1 - block.branch]
            if isinstance(rest, Node):
                self.rest[addition] = (rest, block.name)

        self.base: dict[Node, Node] = {}
        for node in self.nodes:
            source = node.args[0] if node.args and isinstance(node.args[0], Node) else None
            shares = source is not None and (
                (node.op == "call_function" and operator_name(node) in VIEWS)
                or (node not in self.rest and _in_place(source, (shapes or {}).get(node.name)))
            )
            self.base[node] = self.base[source] if shares and source is not None else node

    def readers(self) -> dict[Node, list[tuple[int, frozenset[str]]]]:
        """Per tensor, from the one that makes it on, at which steps it is needed, and the blocks that end the need."""
        readers: dict[Node, list[tuple[int, frozenset[str]]]] = {n: [] for n in self.nodes if self.base[n] is n}
        for i, node in enumerate(self.nodes):
            if self.base[node] is node:
                readers[node].append((i, self.gates[node]))
            rest, block = self.rest.get(node, (None, ""))
            for used in node.all_input_nodes:
                if used is rest:  # without the block it is read by what reads the sum
                    readers[self.base[used]].append((i, self.gates[node] - {block}))
                else:  # a sum is written over what the block adds
                    last = i - 1 if self.fused and rest is not None else i
                    readers[self.base[used]].append((last, self.gates[node]))
        return readers


def _in_place(source: Node, shape: OperatorShape | None) -> bool:
    """Whether a runtime would write the result over what is read: nothing else reads it, and the size is the same."""
    if shape is None or len(source.users) != 1 or source.op != "call_function" or operator_name(source) in VIEWS:
        return False
    if shape.outputs[:1] != shape.inputs[:1]:
        return False
    return bool(shape.fused) or shape.kind == "elementwise"


def _bytes(node: Node, sizes: Sizes) -> Size:
    total = Size(units=sizes.units)
    if node.op not in ("call_function", "placeholder"):
        return total
    value, labels = node.meta.get("val"), sizes.coupling.labels.get(node)
    values = value if isinstance(value, list | tuple) else [value]
    for item, known in zip(values, labels if isinstance(labels, list) else [labels], strict=False):
        if isinstance(item, torch.Tensor) and isinstance(known, Labels):
            total = total + product(sizes.shape(known)) * item.element_size()
    return total


def _steps(graph: _Graph, bytes_of: Mapping[Node, Size]) -> list[Step]:
    """What is alive at the steps after which something is given up; the others have no more alive than their next."""
    readers = graph.readers()
    starts: dict[int, list[Node]] = {}
    ends: dict[int, list[Node]] = {}
    for node, steps in readers.items():
        if bytes_of[node].terms:
            starts.setdefault(steps[0][0], []).append(node)
            ends.setdefault(max(i for i, _ in steps), []).append(node)
    alive: dict[Node, None] = {}
    found = []
    grown = False
    for i, node in enumerate(graph.nodes):
        for born in starts.get(i, ()):
            alive[born] = None
            grown = True
        if i in ends:
            if grown:
                later = {tensor: [gates for at, gates in readers[tensor] if at >= i] for tensor in alive}
                live = tuple(_live(graph, tensor, alive, later[tensor], bytes_of[tensor]) for tensor in alive)
                found.append(Step(node.name, live))
            grown = False
            for done in ends[i]:
                del alive[done]
    return found


def _live(graph: _Graph, tensor: Node, alive: Collection[Node], later: Sequence[frozenset[str]], size: Size) -> Live:
    """The blocks that take the tensor away: its own, and those that all take what reads it from here on."""
    gates = graph.gates[tensor] | frozenset.intersection(*later)
    if tensor in graph.rest:
        rest, block = graph.rest[tensor]
        if graph.base[rest] not in alive or _is_changed(tensor):
            gates -= {block}  # what skips the block is alive in its place
    return Live(tensor.name, size, tuple(sorted(gates)))


def _is_changed(node: Node) -> bool:
    """Whether something writes into the sum: without its block it would be a copy of what skips it."""
    return any(is_operator(user) and schema_of(user).is_mutable for user in node.users)


def _largest(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Without those steps that another has at least as much as, term by term, whatever the widths and blocks."""
    places: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
    rows = []
    for step in steps:
        row: dict[int, float] = {}
        for tensor in step.live:
            for groups, coefficient in tensor.bytes.terms:
                place = places.setdefault((groups, tensor.blocks), len(places))
                row[place] = row.get(place, 0.0) + float(coefficient)
        rows.append(row)
    table = np.zeros((len(rows), len(places)))
    for i, row in enumerate(rows):
        table[i, list(row)] = list(row.values())
    kept = []
    for i in range(len(steps)):
        above = (table >= table[i]).all(axis=1)
        equal = (table == table[i]).all(axis=1)
        if not (above & ~equal).any() and not equal[:i].any():
            kept.append(steps[i])
    return tuple(kept)
