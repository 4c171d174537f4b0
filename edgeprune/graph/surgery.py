"""Surgery: build the smaller network. Parameters are sliced by name, literal sizes in the graph are rewritten."""

# ruff: noqa: ARG001  rewriting functions share one signature
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Graph, GraphModule, Node

from edgeprune.errors import VerificationError
from edgeprune.graph.coupling import Call, Coupling
from edgeprune.graph.labels import Labels, kept_per_dim
from edgeprune.graph.operators import argument_names

__all__ = ["cut", "slice_tensor"]

Keep = NDArray[np.bool_]  # per atom


def cut(module: GraphModule, coupling: Coupling, keep: Keep) -> GraphModule:
    """A new module without the atoms where `keep` is False; `module` is left as it is, no tensor is shared with it."""
    graph = _copy(module.graph)
    for old, new in zip(module.graph.nodes, graph.nodes, strict=True):
        call = coupling.calls.get(old)
        if call is not None and _changes(call, coupling.labels[old], keep):
            _rewrite(old, new, call, coupling, keep)
        _reshape_meta(old, new, coupling, keep)
    smaller = GraphModule(_parameters(module, coupling, keep), graph, "Pruned")
    return smaller.train(module.training)


def _copy(graph: Graph) -> Graph:
    """The same nodes in the same order; the input and output structure is shared, it never changes."""
    copied = Graph()
    copied.output(copied.graph_copy(graph, {}))
    copied.set_codegen(graph._codegen)  # noqa: SLF001  the only way to it
    return copied


def slice_tensor(tensor: torch.Tensor, labels: Labels, keep: Keep) -> torch.Tensor:
    """A copy of the tensor without the removed indices."""
    result = tensor.detach()
    for axis in labels.axes:
        mask = keep[axis.atoms]
        if not mask.all():
            result = result.index_select(axis.dims[0], torch.from_numpy(np.flatnonzero(mask)).to(result.device))
    return result.clone() if result.data_ptr() == tensor.data_ptr() else result


def _parameters(module: GraphModule, coupling: Coupling, keep: Keep) -> dict[str, Any]:
    made: dict[int, Any] = {}
    root: dict[str, Any] = {}
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        name = str(node.target)
        value: Any = module
        for part in name.split("."):
            value = getattr(value, part)
        if isinstance(value, torch.Tensor):
            if id(value) not in made:
                smaller = slice_tensor(value, coupling.parameters[name], keep)
                is_parameter = isinstance(value, torch.nn.Parameter)
                made[id(value)] = torch.nn.Parameter(smaller, value.requires_grad) if is_parameter else smaller
            value = made[id(value)]
        root[name] = value
    return root


def _changes(call: Call, result: Any, keep: Keep) -> bool:
    results = result if isinstance(result, list) else [result]
    everything = [labels for _, labels in call.tensors()] + [r for r in results if isinstance(r, Labels)]
    return any(not keep[axis.atoms].all() for labels in everything for axis in labels.axes)


def _reshape_meta(old: Node, new: Node, coupling: Coupling, keep: Keep) -> None:
    labels = coupling.labels.get(old)
    value = old.meta.get("val")
    if isinstance(labels, Labels) and isinstance(value, torch.Tensor):
        new.meta["val"] = torch.empty(labels.kept_shape(keep), dtype=value.dtype, device="meta")
    elif isinstance(labels, list) and isinstance(value, list | tuple):
        new.meta["val"] = [
            torch.empty(item.kept_shape(keep), dtype=v.dtype, device="meta") if isinstance(item, Labels) else v
            for item, v in zip(labels, value, strict=True)
        ]


# Rewriting literals: one function per kind of operator


def _rewrite(old: Node, new: Node, call: Call, coupling: Coupling, keep: Keep) -> None:
    rewrite = _REWRITES.get(call.name) or _REWRITES.get(call.name.rstrip("_"))
    if rewrite is not None:
        try:
            rewrite(new, call, coupling.labels[old], keep)
        except ValueError as error:
            raise VerificationError(f"{call.name} at {old.name!r}: {error}") from error


def set_argument(node: Node, name: str, value: Any) -> None:
    """Replace an argument by the name that the operator's schema gives it."""
    names = argument_names(node)
    if names.index(name) < len(node.args):
        node.update_arg(names.index(name), value)
    else:
        node.update_kwarg(name, value)


def _argument(node: Node, name: str) -> Any:
    names = argument_names(node)
    position = names.index(name)
    return node.args[position] if position < len(node.args) else node.kwargs.get(name)


def _sizes(argument: str) -> Callable[[Node, Call, Any, Keep], None]:
    def rewrite(node: Node, call: Call, result: Labels, keep: Keep) -> None:
        before, after = result.shape, result.kept_shape(keep)
        sizes = list(_argument(node, argument))
        first = len(before) - len(sizes)
        if call.name == "unflatten":
            first = int(call["dim"]) % len(call.tensors()[0][1].shape)
        for i, size in enumerate(sizes):
            if before[first + i] == after[first + i] or (isinstance(size, int) and size == -1):
                continue
            if isinstance(size, int):
                sizes[i] = after[first + i]
                continue
            # A size that the batch takes part in is left to be inferred; what was inferred until now is written out.
            for j, other in enumerate(sizes):
                if isinstance(other, int) and other == -1:
                    if not isinstance(node.meta["val"].shape[first + j], int):
                        raise ValueError("two of its sizes cannot be rewritten at once")
                    sizes[j] = after[first + j]
            sizes[i] = -1
        set_argument(node, argument, sizes)

    return rewrite


def _kept(labels: Labels, dim: int, keep: Keep) -> NDArray[np.bool_] | None:
    """Which indices of a dimension are left; None where all of them are."""
    axis = labels.axis(dim)
    if axis is None:
        return None
    return kept_per_dim(axis, keep)[axis.dims.index(dim % len(labels.shape))]


def _slice(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    source: Labels = call["self"]
    dim, size = int(call["dim"]), source.shape[int(call["dim"])]
    kept = _kept(source, dim, keep)
    if kept is None:
        return
    start, end = (_bound(call.get(name), default, size) for name, default in (("start", 0), ("end", size)))
    before = int(kept[:start].sum())
    set_argument(node, "start", before)
    set_argument(node, "end", before + int(kept[start:end].sum()))


def _narrow(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    kept = _kept(call["self"], int(call["dim"]), keep)
    if kept is not None:
        start, length = int(call["start"]) % len(kept), int(call["length"])
        set_argument(node, "start", int(kept[:start].sum()))
        set_argument(node, "length", int(kept[start : start + length].sum()))


def _bound(value: int | None, default: int, size: int) -> int:
    if value is None:
        return default
    return max(0, min(size, value + size if value < 0 else value))


def _select(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    kept = _kept(call["self"], int(call["dim"]), keep)
    if kept is not None:
        set_argument(node, "index", int(kept[: int(call["index"]) % len(kept)].sum()))


def _split(node: Node, call: Call, result: list[Labels], keep: Keep) -> None:
    """Parts may have become unequal: any split becomes one with explicit sizes."""
    dim = int(call.get("dim", 0))
    sizes = [labels.kept_shape(keep)[dim] for labels in result]
    source = node.args[0]
    node.target = torch.ops.aten.split_with_sizes.default
    node.args, node.kwargs = (source, sizes, dim), {}


def _pad(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    pad = list(_argument(node, "pad"))
    for i in range(len(pad) // 2):
        dim = len(result.shape) - 1 - i
        kept = _kept(result, dim, keep)
        if kept is not None:
            before, after = max(0, int(pad[2 * i])), max(0, int(pad[2 * i + 1]))
            pad[2 * i] = int(kept[:before].sum()) if before else pad[2 * i]
            pad[2 * i + 1] = int(kept[len(kept) - after :].sum()) if after else pad[2 * i + 1]
    set_argument(node, "pad", pad)


def _squeeze(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    """Squeezing everything would take a dimension along of which one unit is left."""
    source: Labels = call["self"]
    if "dim" not in call.arguments:
        node.target = torch.ops.aten.squeeze.dims
        node.args = (node.args[0], [d for d, size in enumerate(source.shape) if size == 1])


def _normalized_shape(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    set_argument(node, "normalized_shape", list(result.kept_shape(keep)[-len(call["normalized_shape"]) :]))


def _groups(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    """Depthwise convolutions have as many groups as channels; others keep their number of groups."""
    source: Labels = call["input"]
    if int(call["groups"]) == source.shape[1]:
        set_argument(node, "groups", source.kept_shape(keep)[1])


def _num_groups(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    if int(call["num_groups"]) == result.shape[1]:
        set_argument(node, "num_groups", result.kept_shape(keep)[1])


def _scale(node: Node, call: Call, result: Labels, keep: Keep) -> None:
    """The scale follows the head size unless it is given: it is frozen at its old value."""
    query: Labels = call["query"]
    if call.get("scale") is None and query.kept_shape(keep)[-1] != query.shape[-1]:
        node.update_kwarg("scale", 1 / math.sqrt(query.shape[-1]))


_REWRITES: dict[str, Callable[[Node, Call, Any, Keep], None]] = {
    **dict.fromkeys(("view", "_unsafe_view", "expand", "broadcast_to"), _sizes("size")),
    "reshape": _sizes("shape"),
    "unflatten": _sizes("sizes"),
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("constant_pad_nd", "pad"), _pad),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized_shape),
    "squeeze": _squeeze,
    "group_norm": _num_groups,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _groups),
    "scaled_dot_product_attention": _scale,
}
