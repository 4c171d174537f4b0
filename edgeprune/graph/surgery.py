"""Surgery: build the smaller network. Parameters are sliced by name, literal sizes in the graph are rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from edgeprune.graph.operators import sizes_of
from edgeprune.graph.rewriting import is_rewritten, rewrite

__all__ = ["cut", "slice_tensor"]

# Elements that are selected at once, in blocks of rows: what is in between uses the same memory again. Of so few torch
# takes no second thread, which it waits for many times as long as it takes itself where another process runs.
_AT_ONCE = 1 << 15
_AT_ONCE_ALONE = 1 << 17  # where it may use one thread only
_LARGE = 1 << 17  # elements of a tensor that is worth a thread


@torch.inference_mode(mode=False)  # or the new parameters could never be trained
def cut(module: GraphModule, coupling: Coupling, keep: Keep) -> GraphModule:
    """A new module without the atoms where `keep` is False; `module` is left as it is, no tensor is shared with it."""
    graph = _copy(module.graph)
    left = Left(keep, coupling.alike)
    constants: dict[str, torch.Tensor] = {}
    changed: list[tuple[Node, Node]] = []
    known: dict[object, torch.Tensor] = {}
    for old, new in zip(module.graph.nodes, list(graph.nodes), strict=True):
        call = coupling.calls.get(old)
        if call is not None and is_rewritten(call) and _changes(call, coupling.labels[old], left):
            before = new.target, new.args, new.kwargs
            rewrite(new, call, coupling.labels[old], keep, constants)
            if before != (new.target, new.args, new.kwargs):
                changed.append((old, new))
        _reshape_meta(old, new, coupling, left, known)
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
        vars(home)["training"] = training  # what assigning it does in the end


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
    """The same nodes, names and order; the structure of inputs and outputs is shared: it never changes."""
    copied = Graph()
    # The names are unique already; to see to that takes fx longer than all the rest.
    names, known = copied._graph_namespace, graph._graph_namespace  # noqa: SLF001  the only way to them
    names._used_names.update(known._used_names)  # noqa: SLF001
    names._base_count.update(known._base_count)  # noqa: SLF001
    vars(names)["create_name"] = lambda name, _: name
    made: dict[Node, Node] = {}
    for node in graph.nodes:
        # Arguments come after: a node that is made with them is searched for symbolic sizes among them.
        new = made[node] = copied.create_node(node.op, node.target, name=node.name, type_expr=node.type)
        if node.args:
            new.args = map_arg(node.args, made.__getitem__)
        if node.kwargs:
            new.kwargs = map_arg(node.kwargs, made.__getitem__)
        new.meta.update(node.meta)
    del vars(names)["create_name"]
    copied.set_codegen(graph._codegen)  # noqa: SLF001  likewise
    return copied


def slice_tensor(tensor: torch.Tensor, labels: Labels, left: Left) -> torch.Tensor:
    """A copy of the tensor without the removed indices, in the same memory format."""
    tensor = tensor.detach()
    chosen: dict[int, torch.Tensor] = {}
    for axis in labels.axes:
        kept = left.indices(axis)
        if kept.numel() < axis.atoms.size:
            chosen[axis.dims[0]] = kept if tensor.device.type == "cpu" else kept.to(tensor.device)
    if not chosen:
        return tensor.clone()
    if tensor.is_contiguous():
        return _cut_out(tensor, chosen)
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
    if not tensor.permute(order).is_contiguous():
        return _cut_out(tensor, chosen)
    back = sorted(range(tensor.dim()), key=order.__getitem__)
    return _cut_out(tensor.permute(order), {back[dim]: index for dim, index in chosen.items()}).permute(back)


def _cut_out(tensor: torch.Tensor, chosen: dict[int, torch.Tensor]) -> torch.Tensor:
    """What is chosen of each dimension, contiguous."""
    at_once = _AT_ONCE if torch.get_num_threads() > 1 else _AT_ONCE_ALONE
    if tensor.numel() <= at_once or tensor.device.type != "cpu":
        return _selected(tensor, chosen.items())
    shape = [chosen[d].numel() if d in chosen else size for d, size in enumerate(tensor.shape)]
    result = tensor.new_empty(shape)
    of_rows, others = chosen.pop(0, None), list(chosen.items())
    rows = max(1, at_once * len(tensor) // tensor.numel())
    between = tensor.new_empty(rows, *tensor.shape[1:]) if of_rows is not None and others else result
    for first in range(0, len(result), rows):
        part = result[first : first + rows]
        if of_rows is None:
            source = tensor[first : first + rows]
        else:
            source = between[: len(part)] if others else part
            torch.index_select(tensor, 0, of_rows[first : first + rows], out=source)
        if others:
            *before, (dim, index) = others
            torch.index_select(_selected(source, before), dim, index, out=part)
    return result


def _selected(tensor: torch.Tensor, chosen: Iterable[tuple[int, torch.Tensor]]) -> torch.Tensor:
    for dim, index in chosen:
        tensor = tensor.index_select(dim, index)
    return tensor


def _parameters(module: GraphModule, coupling: Coupling, left: Left) -> dict[str, Any]:
    attributes = Attributes(module)
    values = {str(node.target): attributes[str(node.target)] for node in module.graph.nodes if node.op == "get_attr"}
    unique = {id(value): name for name, value in reversed(values.items()) if isinstance(value, torch.Tensor)}
    made = _sliced({name: (values[name], coupling.parameters[name]) for name in unique.values()}, left)
    for name, smaller in made.items():
        if isinstance(values[name], torch.nn.Parameter):
            made[name] = torch.nn.Parameter(smaller, values[name].requires_grad)
    return {name: made[unique[id(value)]] if id(value) in unique else value for name, value in values.items()}


def _sliced(tensors: Mapping[str, tuple[torch.Tensor, Labels]], left: Left) -> dict[str, torch.Tensor]:
    """The slices of the tensors; several large ones at once, as far as torch may use threads."""
    large = [name for name, (tensor, _) in tensors.items() if tensor.numel() >= _LARGE]
    threads = min(torch.get_num_threads(), len(large))
    made: dict[str, torch.Tensor] = {}
    waiting = iter(large)

    def slice_waiting() -> None:
        for name in waiting:
            made[name] = slice_tensor(*tensors[name], left)

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        helpers = [pool.submit(slice_waiting) for _ in range(threads - 1)]
        small = {name: slice_tensor(*both, left) for name, both in tensors.items() if both[0].numel() < _LARGE}
        slice_waiting()
        for helper in helpers:
            helper.result()
    return small | made


def _changes(call: Call, result: Any, left: Left) -> bool:
    results = result if isinstance(result, list) else [result]
    everything = [labels for _, labels in call.tensors()] + [r for r in results if isinstance(r, Labels)]
    return any(left.shape(labels) != labels.shape for labels in everything)


def _reshape_meta(old: Node, new: Node, coupling: Coupling, left: Left, known: dict[object, torch.Tensor]) -> None:
    """Give the new node values of its own sizes; nodes of the same sizes share them, in `known`."""
    labels = coupling.labels.get(old)
    value = old.meta.get("val")
    if isinstance(labels, Labels) and isinstance(value, torch.Tensor):
        sizes = labels.shape if old.op == "get_attr" else None
        new.meta["val"] = _smaller(value, labels, left, known, sizes)
    elif isinstance(labels, list) and isinstance(value, list | tuple):
        new.meta["val"] = [
            _smaller(v, item, left, known) if isinstance(item, Labels) else v
            for item, v in zip(labels, value, strict=True)
        ]


def _smaller(
    value: torch.Tensor,
    labels: Labels,
    left: Left,
    known: dict[object, torch.Tensor],
    sizes: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """`sizes`: those of the value, where none of them is symbolic."""
    before, after = labels.shape, left.shape(labels)
    if after == before:
        return value
    if sizes is None:
        sizes = tuple([s if type(s) is int else s.node.expr for s in sizes_of(value)])
    key = value.dtype, before, after, sizes
    if key not in known:
        known[key] = smaller_meta(value, before, after)
    return known[key]
