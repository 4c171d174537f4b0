"""Surgery: build the smaller network. Parameters are sliced by name, literal sizes in the graph are rewritten."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from edgeprune.graph.call import Call
from edgeprune.graph.code import run_like
from edgeprune.graph.constants import Attributes
from edgeprune.graph.coupling import Coupling
from edgeprune.graph.edit import Keep, smaller_meta
from edgeprune.graph.labels import Labels, Left
from edgeprune.graph.rewriting import is_rewritten, rewrite

__all__ = ["cut", "slice_tensor"]

_ROWS_AT_ONCE = 1 << 18  # elements


def cut(module: GraphModule, coupling: Coupling, keep: Keep) -> GraphModule:
    """A new module without the atoms where `keep` is False; `module` is left as it is, no tensor is shared with it."""
    graph = _copy(module.graph)
    left = Left(keep)
    constants: dict[str, torch.Tensor] = {}
    changed: list[tuple[Node, Node]] = []
    for old, new in zip(module.graph.nodes, list(graph.nodes), strict=True):
        call = coupling.calls.get(old)
        if call is not None and is_rewritten(call) and _changes(call, coupling.labels[old], left):
            before = new.target, new.args, new.kwargs
            rewrite(new, call, coupling.labels[old], keep, constants)
            if before != (new.target, new.args, new.kwargs):
                changed.append((old, new))
        _reshape_meta(old, new, coupling, left)
    smaller = GraphModule({}, Graph(), "Pruned")
    _fill(smaller, {**_parameters(module, coupling, left), **constants}, training=module.training)
    run_like(smaller, graph, module, changed)
    return smaller


def _fill(module: GraphModule, values: dict[str, Any], *, training: bool) -> None:
    """Put parameters, buffers and other attributes in their places, by dotted names."""
    homes: dict[str, torch.nn.Module] = {"": module}
    for name in sorted(values, key=lambda name: name.count(".")):
        path, _, last = name.rpartition(".")
        home, value = _home(homes, path), values[name]
        if isinstance(value, torch.nn.Parameter):
            home.register_parameter(last, value)
        elif isinstance(value, torch.Tensor):
            home.register_buffer(last, value)
        else:
            setattr(home, last, value)
    for home in homes.values():
        home.training = training


def _home(homes: dict[str, torch.nn.Module], path: str) -> torch.nn.Module:
    """The submodule at a dotted path, made where it is missing."""
    if path not in homes:
        above, _, last = path.rpartition(".")
        parent = _home(homes, above)
        found = parent._modules.get(last)  # noqa: SLF001  quicker than the public way by half
        if found is None:
            found = torch.nn.Module()
            parent.add_module(last, found)
        homes[path] = found
    return homes[path]


def _copy(graph: Graph) -> Graph:
    """The same nodes in the same order; the input and output structure is shared, it never changes."""
    copied = Graph()
    made: dict[Node, Node] = {}
    for node in graph.nodes:
        if node.op == "output":
            copied.output(map_arg(node.args[0], made.__getitem__))
            continue
        # Arguments come after: a node that is made with them is searched for symbolic sizes among them.
        new = made[node] = copied.create_node(node.op, node.target, name=node.name, type_expr=node.type)
        if node.args:
            new.args = map_arg(node.args, made.__getitem__)
        if node.kwargs:
            new.kwargs = map_arg(node.kwargs, made.__getitem__)
        new.meta.update(node.meta)
    copied.set_codegen(graph._codegen)  # noqa: SLF001  the only way to it
    return copied


def slice_tensor(tensor: torch.Tensor, labels: Labels, left: Left) -> torch.Tensor:
    """A copy of the tensor without the removed indices."""
    tensor = tensor.detach()
    chosen: list[tuple[int, torch.Tensor]] = []
    for axis in labels.axes:
        kept = left.indices(axis)
        if len(kept) < axis.atoms.size:
            chosen.append((axis.dims[0], torch.from_numpy(kept).to(tensor.device)))
    if not chosen:
        return tensor.clone()
    (dim, index), *others = chosen
    if dim != 0 or not others or tensor.numel() <= _ROWS_AT_ONCE:
        return _selected(tensor, chosen)
    # In blocks of rows: what is selected in between stays small enough to use the same memory again.
    shape = list(tensor.shape)
    for d, picked in chosen:
        shape[d] = len(picked)
    result = tensor.new_empty(shape)
    rows = max(1, _ROWS_AT_ONCE * tensor.shape[0] // tensor.numel())
    for first in range(0, len(index), rows):
        part = index[first : first + rows]
        result[first : first + rows] = _selected(tensor, [(0, part), *others])
    return result


def _selected(tensor: torch.Tensor, chosen: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
    for dim, index in chosen:
        tensor = tensor.index_select(dim, index)
    return tensor


def _parameters(module: GraphModule, coupling: Coupling, left: Left) -> dict[str, Any]:
    made: dict[int, Any] = {}
    root: dict[str, Any] = {}
    attributes = Attributes(module)
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        name = str(node.target)
        value = attributes[name]
        if isinstance(value, torch.Tensor):
            if id(value) not in made:
                smaller = slice_tensor(value, coupling.parameters[name], left)
                is_parameter = isinstance(value, torch.nn.Parameter)
                made[id(value)] = torch.nn.Parameter(smaller, value.requires_grad) if is_parameter else smaller
            value = made[id(value)]
        root[name] = value
    return root


def _changes(call: Call, result: Any, left: Left) -> bool:
    results = result if isinstance(result, list) else [result]
    everything = [labels for _, labels in call.tensors()] + [r for r in results if isinstance(r, Labels)]
    return any(left.shape(labels) != labels.shape for labels in everything)


def _reshape_meta(old: Node, new: Node, coupling: Coupling, left: Left) -> None:
    labels = coupling.labels.get(old)
    value = old.meta.get("val")
    if isinstance(labels, Labels) and isinstance(value, torch.Tensor):
        new.meta["val"] = smaller_meta(value, labels.shape, left.shape(labels))
    elif isinstance(labels, list) and isinstance(value, list | tuple):
        new.meta["val"] = [
            smaller_meta(v, item.shape, left.shape(item)) if isinstance(item, Labels) else v
            for item, v in zip(labels, value, strict=True)
        ]
