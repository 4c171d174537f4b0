"""Rewriting: the literal sizes, bounds and tables of a smaller graph. One function for each kind of operator."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from edgeprune.errors import VerificationError
from edgeprune.graph.call import Call
from edgeprune.graph.edit import NO_SHARE, Edit, Keep, at_two_batches
from edgeprune.graph.labels import Labels
from edgeprune.graph.operators import FILLS, shape_of, sizes_of

__all__ = ["is_rewritten", "rewrite"]


def is_rewritten(call: Call) -> bool:
    """Whether such an operator has literals that may have to change."""
    return _rewriting(call) is not None


def rewrite(node: Node, call: Call, result: Any, keep: Keep, constants: dict[str, torch.Tensor]) -> None:
    """Let the node's literals fit what is kept. Raises VerificationError where no literal could."""
    rewriting = _rewriting(call)
    if rewriting is not None:
        try:
            rewriting(Edit(node, call, result, keep, constants))
        except ValueError as error:
            raise VerificationError(f"{call.name} at {call.node.name!r}: {error}") from error


def _rewriting(call: Call) -> Callable[[Edit], None] | None:
    return _REWRITES.get(call.name) or _REWRITES.get(call.name.rstrip("_"))


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
            inferred = [j for j, other in enumerate(sizes) if isinstance(other, int) and other == -1]
            if any(not isinstance(sizes_of(edit.call.node.meta["val"])[first + j], int) for j in inferred):
                sizes[i] = edit.scaled(size, before[first + i], after[first + i])
                continue
            # A size that the batch takes part in is left to be inferred; what was inferred until now is written out.
            for j in inferred:
                sizes[j] = after[first + j]
            sizes[i] = -1
        edit.set(argument, sizes)

    return rewrite


def _slice(edit: Edit) -> None:
    dim = int(edit.call["dim"]) % len(edit.call["self"].shape)
    if edit.kept(edit.call["self"], dim) is None:
        return
    if int(edit.call.get("step", 1)) != 1:
        _by_table(edit)
        return

    def bounds() -> tuple[int, int, int]:
        size = shape_of(edit.call.node_of("self").meta["val"])[dim]
        return _bound(edit.value("start", 0), size), _bound(edit.value("end", sys.maxsize), size), size

    _cut_out(edit, dim, bounds)


def _narrow(edit: Edit) -> None:
    """It becomes a slice, whose bounds may count from the end."""
    dim = int(edit.call["dim"]) % len(edit.call["self"].shape)
    if edit.kept(edit.call["self"], dim) is None:
        return

    def bounds() -> tuple[int, int, int]:
        size = shape_of(edit.call.node_of("self").meta["val"])[dim]
        start = edit.value("start", 0) % size
        return start, start + edit.value("length", 0), size

    source, start = edit.written("self"), edit.written("start")
    edit.node.target = torch.ops.aten.slice.Tensor
    edit.node.args, edit.node.kwargs = (source, dim, start, sys.maxsize), {}
    _cut_out(edit, dim, bounds)


def _cut_out(edit: Edit, dim: int, bounds: Callable[[], tuple[int, int, int]]) -> None:
    """Let a slice take what is left between its bounds (start, end, and the size of the dimension)."""
    kept = cast("NDArray[np.bool_]", edit.kept(edit.call["self"], dim))
    start, end, size = bounds()
    at = at_two_batches(bounds)
    if (start, end) == (0, size) and all((first, last) == (0, all_of_it) for first, last, all_of_it in at):
        return  # all of it, whatever its size: the batch may take part in it
    for i, (name, place) in enumerate((("start", start), ("end", end))):
        edit.set(name, _place(edit, dim, kept, place, [(found[i], found[2]) for found in at]))


def _place(edit: Edit, dim: int, kept: NDArray[np.bool_], place: int, at: list[tuple[int, int]]) -> Any:
    """Where `place` of a dimension is in the smaller graph; `at`: place and size at two batches."""
    (first, size), (second, larger) = at
    if first == second:
        return int(kept[:place].sum())
    if size - first == larger - second:  # counted from the end
        return -int(kept[place:].sum()) or sys.maxsize
    if first * larger == second * size:
        return edit.share("self", dim, int(kept[:place].sum()), int(kept.sum()))
    raise ValueError(NO_SHARE)


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


def _bound(value: int, size: int) -> int:
    return max(0, min(size, value + size if value < 0 else value))


def _select(edit: Edit) -> None:
    dim = int(edit.call["dim"]) % len(edit.call["self"].shape)
    kept = edit.kept(edit.call["self"], dim)
    if kept is None:
        return

    def place() -> tuple[int, int]:
        size = shape_of(edit.call.node_of("self").meta["val"])[dim]
        return edit.value("index", 0) % size, size

    edit.set("index", _place(edit, dim, kept, place()[0], list(at_two_batches(place))))


def _split(edit: Edit) -> None:
    """Parts may have become unequal: any split along what has shrunk becomes one with explicit sizes."""
    dim = int(edit.call.get("dim", 0)) % len(edit.call["self"].shape)
    before = [labels.shape[dim] for labels in edit.result]
    sizes: list[Any] = [labels.kept_shape(edit.keep)[dim] for labels in edit.result]
    if sizes == before:
        return
    if edit.follows_batch("self", dim):
        parts = edit.call.node.meta["val"]
        first, second = at_two_batches(lambda: [shape_of(part)[dim] for part in parts])
        written = edit.written("split_sizes") if "split_sizes" in edit.call.arguments else [None] * len(sizes)
        left = sum(sizes)
        for i, size in enumerate(written):
            if first[i] * sum(second) == second[i] * sum(first):
                sizes[i] = edit.share("self", dim, sizes[i], left)
            elif first[i] != second[i]:
                sizes[i] = edit.scaled(size, before[i], sizes[i])
    source = edit.node.args[0]
    edit.node.target = torch.ops.aten.split_with_sizes.default
    edit.node.args, edit.node.kwargs = (source, sizes, dim), {}


def _pad(edit: Edit) -> None:
    pad = list(edit.written("pad"))
    for i in range(len(pad) // 2):
        dim = len(edit.result.shape) - 1 - i
        kept = edit.kept(edit.result, dim)
        if kept is not None:
            before, after = (max(0, int(n)) for n in edit.call["pad"][2 * i : 2 * i + 2])
            for place, size, left in ((2 * i, before, kept[:before]), (2 * i + 1, after, kept[len(kept) - after :])):
                if size and not left.all():
                    pad[place] = edit.scaled(pad[place], size, int(left.sum()))
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
        left = int(kept.reshape(groups, -1).any(axis=1).sum())
        if left != groups:
            edit.set(name, edit.scaled(edit.written(name), groups, left))


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
