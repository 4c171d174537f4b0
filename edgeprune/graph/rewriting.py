"""Rewriting: the literal sizes, bounds and tables of a smaller graph. One function for each kind of operator."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from edgeprune.errors import VerificationError
from edgeprune.graph.call import Call
from edgeprune.graph.labels import Labels, kept_per_dim
from edgeprune.graph.operators import FILLS, argument_names, at_batch, concrete, shape_of, sizes_of

__all__ = ["Keep", "rewrite", "smaller_meta"]

Keep = NDArray[np.bool_]  # per atom
T = TypeVar("T")
_NO_SHARE = "the batch is part of a size in a way that cannot be rewritten"


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

    def follows_batch(self, name: str, dim: int) -> bool:
        """Whether the batch takes part in the size of a dimension of an argument: no literal fits it."""
        return not isinstance(sizes_of(self.call.node_of(name).meta["val"])[dim], int)

    def value(self, name: str, default: int) -> int:
        """An integer argument as it is at the batch that is looked at."""
        written = self.call.node_of(name)
        return int(
            concrete(written.meta["val"] if isinstance(written, Node) else default if written is None else written)
        )

    def scaled(self, size: Any, before: int, after: int) -> Any:
        """A size as written that was `before` and becomes `after`: a literal, or a share of what the batch makes it."""
        if isinstance(size, int):
            return after
        first, second = at_two_batches(lambda: int(concrete(size.meta["val"]))) if isinstance(size, Node) else (1, 1)
        if second != 2 * first:
            raise ValueError(_NO_SHARE)
        return self._share(size, after, before)

    def share(self, argument: str, dim: int, part: int, whole: int) -> Node:
        """`part / whole` of the size that a dimension of an argument has in the smaller graph."""
        with self.node.graph.inserting_before(self.node):
            size = self._call(torch.ops.aten.sym_size.int, self.written(argument), dim)
        old = sizes_of(self.call.node_of(argument).meta["val"])[dim]
        size.meta["val"] = _smaller_size(old, int(concrete(old)), whole)
        return size if part == whole else self._share(size, part, whole)

    def _share(self, size: Node, part: int, whole: int) -> Node:
        divisor = math.gcd(part, whole)
        part, whole = part // divisor, whole // divisor
        with self.node.graph.inserting_before(self.node):
            scaled = self._call(operator.mul, size, part) if part != 1 else size
            return self._call(operator.floordiv, scaled, whole) if whole != 1 else scaled

    def _call(self, target: Callable[..., Any], source: Node, value: int) -> Node:
        node = self.node.graph.call_function(target, (source, value))
        if not isinstance(source.meta["val"], torch.Tensor):
            node.meta["val"] = target(source.meta["val"], value)
        return node

    def constant(self, values: NDArray[np.int64]) -> Node:
        """A node for a new constant table."""
        name = f"_table_{self.node.name}_{len(self.constants)}"
        self.constants[name] = torch.from_numpy(np.ascontiguousarray(values))
        with self.node.graph.inserting_before(self.node):
            node = self.node.graph.create_node("get_attr", name)
        node.meta["val"] = torch.empty(values.shape, dtype=torch.int64, device="meta")
        return node


def at_two_batches(value: Callable[[], T]) -> tuple[T, T]:
    """What is computed from sizes, at a batch and at one twice as large; many numbers divide both."""
    with at_batch(5040):
        first = value()
    with at_batch(10080):
        return first, value()


def smaller_meta(value: torch.Tensor, labels: Labels, keep: Keep) -> torch.Tensor:
    """What a node of the smaller graph carries: its dtype and sizes, those with the batch in them still symbolic."""
    after = labels.kept_shape(keep)
    if after == labels.shape:
        return value
    meta = torch.empty(after, dtype=value.dtype, device="meta")
    # A tensor with symbolic sizes would take milliseconds to make.
    meta.sizes = tuple(map(_smaller_size, sizes_of(value), labels.shape, after))  # type: ignore[attr-defined]
    return meta


def _smaller_size(size: Any, before: int, after: int) -> Any:
    if before == after:
        return size
    return after if isinstance(size, int) else size * after // before


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
    raise ValueError(_NO_SHARE)


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
