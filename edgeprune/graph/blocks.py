"""Residual blocks: what an addition adds to a tensor, computed from that tensor, can be dropped as a whole.

In y = x + f(x), with equal shapes, f is a block where nothing else reads its result: without it y is x. x may itself
be a sum that f's input takes part in (x + f(x) + g(x) has two blocks). Blocks may be nested; activations and
normalisations after the addition, and what f does inside, do not matter. Dropping follows ShortGPT (Men et al. 2024,
arXiv:2403.03853) and "Residual Networks Behave Like Ensembles" (Veit et al. 2016, arXiv:1605.06431).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, cast

import torch
from torch.fx import Graph, GraphModule, Node

from edgeprune.errors import UsageError, did_you_mean
from edgeprune.graph.cost import VIEWS
from edgeprune.graph.macs import macs_of
from edgeprune.graph.operators import is_operator, operator_name, schema_of, shape_of

__all__ = ["Block", "dropped_branches", "find_blocks", "named_blocks", "without_blocks"]


@dataclass(frozen=True, slots=True, repr=False)
class Block:
    """A residual branch that can be dropped: the addition then gives what comes in at its other argument.

    `name` is the common prefix of its parameters. `parameters` are the dotted names of parameters and buffers that
    are used nowhere else, `params` the number of parameters in them; `macs` are at batch 1, `macs_share` of the whole.
    `nodes` are the nodes of the captured graph that go with it, in graph order.
    """

    name: str
    parameters: tuple[str, ...]
    params: int
    macs: int
    macs_share: float
    addition: str  # the node
    branch: int  # the argument of the addition that is dropped
    nodes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Block({self.name!r}, {self.params:,} parameters, {self.macs_share:.1%} of the multiply-accumulates)"


def find_blocks(module: GraphModule) -> tuple[Block, ...]:
    """The droppable blocks with parameters, in the order of their additions; an outer block follows its inner ones."""
    nodes: list[Node] = list(module.graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    batch = next((max(shape_of(n.meta["val"])[:1] or (1,)) for n in nodes if n.op == "placeholder"), 1)
    all_macs = sum(macs_of(node) for node in nodes if node.op == "call_function")
    readers: dict[int, list[Node]] = {}  # of each tensor: tied parameters have several names
    for node in nodes:
        if node.op == "get_attr":
            readers.setdefault(id(_attribute(module, node)), []).append(node)
    found = []
    for node in nodes:
        for branch in _branches(node):
            cone = _cone(node, branch)
            if not cone:
                continue
            own = {
                str(n.target): _attribute(module, n)
                for n in nodes
                if n in cone and n.op == "get_attr" and cone.issuperset(readers[id(_attribute(module, n))])
            }
            tensors = {id(value): value for value in own.values()}
            params = sum(t.numel() for t in tensors.values() if isinstance(t, torch.nn.Parameter))
            if params:
                macs = sum(macs_of(n) for n in cone if n.op == "call_function")
                inside = tuple(n.name for n in sorted(cone, key=order.__getitem__))
                names = tuple(name for name, value in own.items() if isinstance(value, torch.Tensor))
                share = macs / all_macs if all_macs else 0.0
                found.append(Block("", names, params, macs // batch, share, node.name, branch, inside))
    return _named(module, found)


def _attribute(module: GraphModule, node: Node) -> Any:
    """What a get_attr node stands for."""
    return attrgetter(str(node.target))(module)


def _branches(node: Node) -> tuple[int, ...]:
    """The arguments of an addition of equal shapes that might be dropped."""
    if node.op != "call_function" or not is_operator(node) or operator_name(node) not in ("add", "add_"):
        return ()
    terms = node.args[:2]
    if len(terms) < 2 or terms[0] is terms[1] or not all(isinstance(t, Node) for t in terms):
        return ()
    values = [t.meta.get("val") for t in (*terms, node) if isinstance(t, Node)]
    tensors = [v for v in values if isinstance(v, torch.Tensor)]
    if len(tensors) != len(values) or len({(shape_of(v), v.dtype) for v in tensors}) != 1:
        return ()
    return (1, 0) if node.kwargs.get("alpha", 1) == 1 else (1,)  # alpha scales the second one


def _cone(addition: Node, branch: int) -> set[Node]:
    """The nodes that only the branch needs; empty where it is not computed from what it is added to."""
    last, other = addition.args[branch], addition.args[1 - branch]
    if not isinstance(last, Node) or not isinstance(other, Node) or len(last.users) != 1:
        return set()
    stream = _sum(other)
    if last in stream or not _reaches(last, stream):
        return set()
    cone: set[Node] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node in cone or node in stream or node.op == "placeholder":
            continue
        if all(user in cone or user is addition for user in node.users):
            cone.add(node)
            waiting.extend(node.all_input_nodes)
    # What changes a tensor that stays, in place, cannot go.
    changing = [n for n in cone if n.op == "call_function" and is_operator(n) and schema_of(n).is_mutable]
    return set() if any(_base(n) not in cone for n in changing) else cone


def _base(node: Node) -> Node:
    """The node that made the memory which an in-place operator changes."""
    source = cast("Node", node.args[0])
    while source.op == "call_function" and operator_name(source) in VIEWS and isinstance(source.args[0], Node):
        source = source.args[0]
    return source


def _sum(node: Node) -> set[Node]:
    """The node, and the terms of the sum that it is."""
    terms: set[Node] = set()
    waiting = [node]
    while waiting:
        term = waiting.pop()
        if term not in terms:
            terms.add(term)
            if _branches(term):
                waiting.extend(argument for argument in term.args[:2] if isinstance(argument, Node))
    return terms


def _reaches(node: Node, sources: set[Node]) -> bool:
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        for used in waiting.pop().all_input_nodes:
            if used in sources:
                return True
            if used not in seen:
                seen.add(used)
                waiting.append(used)
    return False


# Names


def _named(module: GraphModule, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks of one layer (the halves of a transformer layer) are told apart by their largest part."""
    prefixes = [_prefix(block.parameters) for block in blocks]
    often = Counter(prefixes)
    names = [
        prefix if prefix and often[prefix] == 1 else _largest_part(module, block, prefix)
        for block, prefix in zip(blocks, prefixes, strict=True)
    ]
    seen: Counter[str] = Counter()
    named = []
    for block, name in zip(blocks, names, strict=True):
        seen[name] += 1
        named.append(replace(block, name=name if seen[name] == 1 else f"{name}:{seen[name]}"))
    return tuple(named)


def _prefix(parameters: Iterable[str]) -> str:
    """The innermost module that holds all of the parameters."""
    paths = [name.split(".")[:-1] for name in parameters]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)


def _largest_part(module: GraphModule, block: Block, prefix: str) -> str:
    sizes: Counter[str] = Counter()
    for name in block.parameters:
        rest = name[len(prefix) + 1 :] if prefix else name
        sizes[rest.split(".")[0]] += int(attrgetter(name)(module).numel())
    part = max(sizes, key=sizes.__getitem__)
    return f"{prefix}.{part}" if prefix else part


# Dropping


def named_blocks(blocks: Sequence[Block], names: Iterable[str]) -> tuple[Block, ...]:
    """The blocks of these names, in graph order. Raises UsageError."""
    known = {block.name: block for block in blocks}
    wanted = set(names)
    for name in sorted(wanted):
        if name not in known:
            hint = did_you_mean(name, known) if known else "the model has no residual block that could be dropped"
            raise UsageError(f"no block is named {name!r}", hint=hint)
    return tuple(block for block in blocks if block.name in wanted)


def dropped_branches(graph: Graph, blocks: Iterable[Block]) -> Mapping[Node, int]:
    """Per addition of the blocks, in this graph, the argument that is dropped."""
    nodes = {node.name: node for node in graph.nodes}
    return {nodes[block.addition]: block.branch for block in blocks}


def without_blocks(module: GraphModule, dense: Graph, blocks: Sequence[Block]) -> GraphModule:
    """`module` without the blocks and what only they need; it is used up.

    Its graph has the nodes of the captured graph `dense`, in the same order.
    """
    graph = module.graph
    twin = {old.name: new for old, new in zip(dense.nodes, graph.nodes, strict=True)}
    # The output keeps its node; where an outer block goes, its inner ones have gone with it.
    for block in reversed(blocks):
        addition = twin[block.addition]
        if addition.graph is not graph or addition._erased:  # noqa: SLF001  the only way to know
            continue
        rest = cast("Node", addition.args[1 - block.branch])
        if any(is_operator(user) and schema_of(user).is_mutable for user in addition.users):
            with graph.inserting_before(addition):  # so that what is changed in place is not what others read
                copy = graph.call_function(torch.ops.aten.clone.default, (rest,))
            copy.meta["val"] = addition.meta["val"]
            rest = copy
        addition.replace_all_uses_with(rest)
        graph.erase_node(addition)
        for name in reversed(block.nodes):
            if not twin[name]._erased:  # noqa: SLF001
                graph.erase_node(twin[name])
    _sweep(graph)
    graph.lint()
    root = {str(n.target): _attribute(module, n) for n in graph.nodes if n.op == "get_attr"}
    return GraphModule(root, graph, "Pruned").train(module.training)


def _sweep(graph: Graph) -> None:
    """Erase what only several dropped blocks together have read."""
    for node in reversed(list(graph.nodes)):
        changes = node.op == "call_function" and is_operator(node) and schema_of(node).is_mutable
        if not node.users and node.op in ("call_function", "get_attr") and not changes:
            graph.erase_node(node)
