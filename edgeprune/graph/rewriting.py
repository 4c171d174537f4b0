"""Rewriting: the literal sizes, bounds and tables of a smaller graph. One function for each kind of operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from edgeprune.errors import VerificationError
from edgeprune.graph.call import Call
from edgeprune.graph.labels import Labels, kept_per_dim
from edgeprune.graph.operators import FILLS, argument_names

__all__ = ["Keep", "rewrite"]

Keep = NDArray[np.bool_]  # per atom


@dataclass(frozen=True, slots=True)
class Edit:
    """One operator of the smaller graph that still has the literals of the call that it is copied from."""

    node: Node
    call: Call
    result: Any  # labels of the call's result
    keep: Keep
    constants: dict[str, torch.Tensor]  # tables that the smaller graph needs; filled by the rewriting

    def kept(self, labels: Labels, dim: int) -> NDArray[np.bool_] | None:
        """Which indices of a dimension are left; None where all of them are, for good."""
        axis = labels.axis(dim)
        if axis is None:
            return None
        return kept_per_dim(axis, self.keep)[axis.dims.index(dim % len(labels.shape))]

    def written(self, name: str) -> Any:
        """An argument as the new node has it."""
        names = argument_names(self.node)
        position = names.index(name)
        return self.node.args[position] if position < len(self.node.args) else self.node.kwargs.get(name)

    def set(self, name: str, value: Any) -> None:
        """Replace an argument by the name that the operator's schema gives it."""
        position = argument_names(self.node).index(name)
        if position < len(self.node.args):
            self.node.update_arg(position, value)
        else:
            self.node.update_kwarg(name, value)

    def constant(self, values: NDArray[np.int64]) -> Node:
        """A node for a new constant table."""
        name = f"_table_{self.node.name}_{len(self.constants)}"
        self.constants[name] = torch.from_numpy(np.ascontiguousarray(values))
        with self.node.graph.inserting_before(self.node):
            node = self.node.graph.create_node("get_attr", name)
        node.meta["val"] = torch.empty(values.shape, dtype=torch.int64, device="meta")
        return node


def rewrite(node: Node, call: Call, result: Any, keep: Keep, constants: dict[str, torch.Tensor]) -> None:
    """Let the node's literals fit what is kept. Raises VerificationError where no literal could."""
    rewriting = _REWRITES.get(call.name) or _REWRITES.get(call.name.rstrip("_"))
    if rewriting is not None:
        try:
            rewriting(Edit(node, call, result, keep, constants))
        except ValueError as error:
            raise VerificationError(f"{call.name} at {call.node.name!r}: {error}") from error


def _sizes(argument: str) -> Callable[[Edit], None]:
    def rewrite(edit: Edit) -> None:
        before, after = edit.result.shape, edit.result.kept_shape(edit.keep)
        sizes = list(edit.written(argument))
        first = len(before) - len(sizes)
        if edit.call.name == "unflatten":
            first = int(edit.call["dim"]) % len(edit.call.tensors()[0][1].shape)
        for i, size in enumerate(sizes):
            if before[first + i] == after[first + i] or (isinstance(size, int) and size == -1):
                continue
            if isinstance(size, int):
                sizes[i] = after[first + i]
                continue
            # A size that the batch takes part in is left to be inferred; what was inferred until now is written out.
            for j, other in enumerate(sizes):
                if isinstance(other, int) and other == -1:
                    if not isinstance(edit.node.meta["val"].shape[first + j], int):
                        raise ValueError("two of its sizes cannot be rewritten at once")
                    sizes[j] = after[first + j]
            sizes[i] = -1
        edit.set(argument, sizes)

    return rewrite


def _slice(edit: Edit) -> None:
    if int(edit.call.get("step", 1)) != 1 and edit.kept(edit.call["self"], int(edit.call["dim"])) is not None:
        _by_table(edit)
        return
    source: Labels = edit.call["self"]
    dim, size = int(edit.call["dim"]), source.shape[int(edit.call["dim"])]
    kept = edit.kept(source, dim)
    if kept is None:
        return
    start, end = (_bound(edit.call.get(name), default, size) for name, default in (("start", 0), ("end", size)))
    if (start, end) == (0, size):
        return  # all of it, whatever its size: the batch may take part in it
    before = int(kept[:start].sum())
    edit.set("start", before)
    edit.set("end", before + int(kept[start:end].sum()))


def _by_table(edit: Edit) -> None:
    """What picks indices of one dimension picks, by a table, those that are left, under their new numbers."""
    source: Labels = edit.call["self"]
    order: NDArray[np.int64]
    for dim, size in enumerate(source.shape):
        kept = edit.kept(source, dim)
        if kept is None or kept.all():
            continue
        if edit.call.name == "roll":
            dims = list(edit.call.get("dims", ())) or list(range(len(source.shape)))
            places = [i for i, d in enumerate(dims) if int(d) % len(source.shape) == dim]
            if not places:
                continue
            shifts = list(edit.written("shifts"))
            order = np.roll(np.arange(size), sum(int(shifts[i]) for i in places))
            edit.set("shifts", [0 if i in places else shift for i, shift in enumerate(shifts)])
            edit.set("dims", dims)
            _insert_table(edit, dim, _renumbered(order, kept))
        elif edit.call.name == "slice":
            if dim == int(edit.call["dim"]) % len(source.shape):
                order = np.arange(size)[slice(edit.call.get("start"), edit.call.get("end"), int(edit.call["step"]))]
                _become_table(edit, dim, _renumbered(order, kept))
        elif edit.call.name == "index_select":
            table = edit.call.constant(edit.call.node_of("index"))
            if dim == int(edit.call["dim"]) % len(source.shape) and table is not None:
                edit.set("index", edit.constant(_renumbered(table.reshape(-1).numpy(), kept)))
        else:
            tables = edit.call.node_of("indices")
            table = edit.call.constant(tables[dim]) if dim < len(tables) and tables[dim] is not None else None
            if table is not None:
                new = edit.constant(_renumbered(table.numpy(), kept))
                edit.set("indices", [new if d == dim else t for d, t in enumerate(edit.written("indices"))])


def _renumbered(order: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    order = np.where(order < 0, order + len(kept), order)
    return (np.cumsum(kept) - 1)[order[kept[order]]]


def _insert_table(edit: Edit, dim: int, table: NDArray[np.int64]) -> None:
    source = edit.node.args[0]
    with edit.node.graph.inserting_before(edit.node):
        picked = edit.node.graph.call_function(torch.ops.aten.index_select.default, (source, dim, edit.constant(table)))
    edit.node.update_arg(0, picked)
    shape = list(edit.call["self"].kept_shape(edit.keep))
    picked.meta["val"] = torch.empty(shape, dtype=source.meta["val"].dtype, device="meta")  # type: ignore[union-attr]


def _become_table(edit: Edit, dim: int, table: NDArray[np.int64]) -> None:
    edit.node.args = (edit.node.args[0], dim, edit.constant(table))
    edit.node.kwargs = {}
    edit.node.target = torch.ops.aten.index_select.default


def _narrow(edit: Edit) -> None:
    kept = edit.kept(edit.call["self"], int(edit.call["dim"]))
    if kept is not None:
        start, length = int(edit.call["start"]) % len(kept), int(edit.call["length"])
        edit.set("start", int(kept[:start].sum()))
        edit.set("length", int(kept[start : start + length].sum()))


def _bound(value: int | None, default: int, size: int) -> int:
    if value is None:
        return default
    return max(0, min(size, value + size if value < 0 else value))


def _select(edit: Edit) -> None:
    kept = edit.kept(edit.call["self"], int(edit.call["dim"]))
    if kept is not None:
        edit.set("index", int(kept[: int(edit.call["index"]) % len(kept)].sum()))


def _split(edit: Edit) -> None:
    """Parts may have become unequal: any split becomes one with explicit sizes."""
    dim = int(edit.call.get("dim", 0))
    sizes = [labels.kept_shape(edit.keep)[dim] for labels in edit.result]
    source = edit.node.args[0]
    edit.node.target = torch.ops.aten.split_with_sizes.default
    edit.node.args, edit.node.kwargs = (source, sizes, dim), {}


def _pad(edit: Edit) -> None:
    pad = list(edit.written("pad"))
    for i in range(len(pad) // 2):
        dim = len(edit.result.shape) - 1 - i
        kept = edit.kept(edit.result, dim)
        if kept is not None:
            before, after = max(0, int(pad[2 * i])), max(0, int(pad[2 * i + 1]))
            pad[2 * i] = int(kept[:before].sum()) if before else pad[2 * i]
            pad[2 * i + 1] = int(kept[len(kept) - after :].sum()) if after else pad[2 * i + 1]
    edit.set("pad", pad)


def _squeeze(edit: Edit) -> None:
    """Squeezing everything would take a dimension along of which one unit is left."""
    source: Labels = edit.call["self"]
    if "dim" not in edit.call.arguments:
        edit.node.target = torch.ops.aten.squeeze.dims
        edit.node.args = (edit.node.args[0], [d for d, size in enumerate(source.shape) if size == 1])


def _normalized_shape(edit: Edit) -> None:
    edit.set("normalized_shape", list(edit.result.kept_shape(edit.keep)[-len(edit.call["normalized_shape"]) :]))


def _groups(edit: Edit) -> None:
    """As many groups as have channels left."""
    name = "num_groups" if "num_groups" in edit.call.arguments else "groups"
    kept = edit.kept(edit.call["input"], 1)
    groups = int(edit.call[name])
    if kept is not None and groups > 1:
        edit.set(name, int(kept.reshape(groups, -1).any(axis=1).sum()))


def _scale(edit: Edit) -> None:
    """The scale follows the head size unless it is given: it is frozen at its old value."""
    query: Labels = edit.call["query"]
    if edit.call.get("scale") is None and query.kept_shape(edit.keep)[-1] != query.shape[-1]:
        edit.node.update_kwarg("scale", 1 / math.sqrt(query.shape[-1]))


_REWRITES: dict[str, Callable[[Edit], None]] = {
    **dict.fromkeys(("view", "_unsafe_view", "expand", "broadcast_to"), _sizes("size")),
    **dict.fromkeys(
        FILLS,
        _sizes("size"),
    ),
    "reshape": _sizes("shape"),
    "unflatten": _sizes("sizes"),
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("constant_pad_nd", "pad"), _pad),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized_shape),
    "squeeze": _squeeze,
    "group_norm": _groups,
    **dict.fromkeys((f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)), _groups),
    **dict.fromkeys(("index", "index_select", "roll"), _by_table),
    "scaled_dot_product_attention": _scale,
}
