"""Data movement: the operator itself runs on an integer label tensor, and the index map is read off the result."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Axis, Labels, label_tensor, read_off, reshaped
from edgeprune.graph.operators import FILLS, is_written, sizes_of
from edgeprune.graph.rules.elementwise import broadcast

__all__ = ["RULES", "move"]

_PADDED = -1  # what padding puts into a label tensor


def move(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """Any operator that copies elements of one tensor to other places."""
    name, source = call.tensors()[0]
    axes: list[list[Axis]] = [[] for _ in call.shapes]
    for axis in sorted(source.axes, key=coupling.is_free):
        try:
            if call.name in _RESHAPES:
                moved = [reshaped(axis, source.shape, call.shape)]
            else:
                moved = _run(call, name, label_tensor(axis, source.shape))
        except (RuntimeError, TypeError):
            coupling.freeze(axis.atoms, "has no pruning rule in this form")
            continue
        for out, result in zip(axes, moved, strict=True):
            found, constant = read_off(result)
            if found is not None:
                out.append(found)
            elif constant > 0:  # one index was picked out: what follows depends on it alone
                coupling.freeze(np.array([constant]), "picks it out by its index")
    outputs = [_without_overlap(coupling, shape, found) for shape, found in zip(call.shapes, axes, strict=True)]
    return outputs if isinstance(call.node.meta["val"], list | tuple) else outputs[0]


def permuted(coupling: Coupling, call: Call) -> Labels:  # noqa: ARG001  a rule
    """`permute`, `transpose`: known without running them."""
    source: Labels = call["self"]
    count = len(source.shape)
    if call.name.startswith("permute"):
        order = [int(dim) % count for dim in call["dims"]]
    else:
        order = list(range(count))
        first, second = int(call["dim0"]), int(call["dim1"])
        order[first], order[second] = order[second], order[first]
    return Labels(call.shape, tuple(axis.moved([order.index(dim) for dim in axis.dims]) for axis in source.axes))


def picked(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """`select`, `unbind`: of a split dimension, the part that is picked from keeps its size; the others pass on."""
    name, source = call.tensors()[0]
    dim = int(call.get("dim", 0)) % len(source.shape)
    axis = source.axis(dim)
    if axis is not None and axis.is_joint:
        source = coupling.separate(source, axis, [d for d in axis.dims if d != dim])
    call.arguments[name] = source
    return move(coupling, call)


def _run(call: Call, name: str, labels: torch.Tensor) -> list[torch.Tensor]:
    arguments = {
        key: labels if key == name else _materialise(call, key, value) for key, value in call.arguments.items()
    }
    operator = cast("Any", call.node.target)
    try:
        result = operator(**arguments)
    except RuntimeError:  # not there for integers; double precision holds every label exactly
        result = operator(**{**arguments, name: labels.double()})
    results = result if isinstance(result, list | tuple) else [result]
    return [item.to(torch.int64) for item in results]


def _materialise(call: Call, name: str, value: Any) -> Any:
    """Other tensors: their values where they are constant, else they only lend their shape (view_as, expand_as)."""
    if isinstance(value, Labels):
        constant = call.constant(call.node_of(name))
        return torch.empty(1).expand(value.shape) if constant is None else constant
    return value


def padded(coupling: Coupling, call: Call) -> Labels:
    """`pad`, `constant_pad_nd`: what is put beside the labelled indices is new; along other dimensions they go on."""
    source: Labels = call["self"]
    pad = [int(n) for n in call["pad"]]
    constant = call.get("mode", "constant") == "constant"
    axes = []
    for axis in source.axes:
        around = [pad[2 * (len(source.shape) - 1 - d) :][:2] or [0, 0] for d in axis.dims]
        atoms = axis.atoms[
            tuple(slice(max(0, -a), n - max(0, -b)) for (a, b), n in zip(around, axis.atoms.shape, strict=True))
        ]
        width = [(max(0, a), max(0, b)) for a, b in around]
        if constant:
            atoms = np.pad(atoms, width, constant_values=_PADDED)
            new = atoms == _PADDED
            atoms[new] = coupling.fresh(int(new.sum()))
        elif any(a or b for a, b in width):
            coupling.freeze(axis.atoms, "repeats parts of it")
            continue
        axes.append(Axis(axis.dims, atoms))
    return Labels(call.shape, tuple(axes))


def _without_overlap(coupling: Coupling, shape: tuple[int, ...], axes: list[Axis]) -> Labels:
    """Where two axes ended up on one dimension, an index would depend on both: the later one (a free one) is frozen."""
    kept: list[Axis] = []
    for axis in axes:
        if any(set(axis.dims) & set(other.dims) for other in kept):
            coupling.freeze(axis.atoms, "merges two prunable dimensions into one")
        else:
            kept.append(axis)
    return Labels(shape, tuple(kept))


def stack(coupling: Coupling, call: Call) -> Labels:
    """`stack`: what lies on top of one another goes together."""
    dim = int(call.get("dim", 0)) % len(call.shape)
    shape = tuple(1 if d == dim else n for d, n in enumerate(call.shape))
    below = broadcast(coupling, [_unsqueezed(labels, dim) for labels in call["tensors"]], shape)
    return Labels(call.shape, below.axes)


def concatenate(coupling: Coupling, call: Call) -> Labels:
    """`cat`: along the dimension the atoms follow each other, on all others they are tied."""
    inputs = cast("list[Labels]", [item for item in call["tensors"] if item.shape != (0,)])
    dim = int(call.get("dim", 0)) % len(call.shape)
    along = [labels.axis(dim) for labels in inputs]
    dims = {axis.dims for axis in along if axis is not None}
    joined: list[Axis] = []
    if dims:
        if len(dims) > 1 or any(axis is None for axis in along):
            inputs = [coupling.along(labels, dim)[0] for labels in inputs]
            along = [labels.axis(dim) for labels in inputs]
        places = next(axis.dims for axis in along if axis is not None)
        parts = [
            np.zeros([labels.shape[d] for d in places], np.int64) if axis is None else axis.atoms
            for labels, axis in zip(inputs, along, strict=True)
        ]
        joined.append(Axis(places, np.concatenate(parts, axis=places.index(dim))))
    others = [
        Labels(
            tuple(1 if d == dim else n for d, n in enumerate(labels.shape)),
            tuple(a for a in labels.axes if a is not axis),
        )
        for labels, axis in zip(inputs, along, strict=True)
    ]
    shape = tuple(1 if d == dim else n for d, n in enumerate(call.shape))
    taken = {d for axis in joined for d in axis.dims}
    rest = broadcast(coupling, others, shape, free=taken)
    return Labels(call.shape, (*joined, *rest.axes))


def _unsqueezed(labels: Labels, dim: int) -> Labels:
    shape = (*labels.shape[:dim], 1, *labels.shape[dim:])
    return Labels(shape, tuple(Axis(tuple(d + (d >= dim) for d in a.dims), a.atoms) for a in labels.axes))


def same(coupling: Coupling, call: Call) -> Labels:  # noqa: ARG001  a rule
    """Copies and the like: every element stays where it is."""
    return Labels(call.shape, call.tensors()[0][1].axes)


def shaped(coupling: Coupling, call: Call) -> Labels:
    """`view_as`, `expand_as`: a movement whose result has, for good, the sizes of the other tensor."""
    moved = expanded(coupling, call) if call.name == "expand_as" else cast("Labels", move(coupling, call))
    broadcast(coupling, [moved, call["other"]], call.shape)
    return moved


def expanded(coupling: Coupling, call: Call) -> Labels:
    """`expand`: what is repeated along a dimension of literal size is the same everywhere, and may be repeated less."""
    source: Labels = call["self"]
    moved = cast("Labels", move(coupling, call))
    sizes = [None, *call.shape[1:]] if call.name == "expand_as" else call.node_of("size")
    first = len(call.shape) - len(source.shape)
    spread = [
        d
        for d, size in enumerate(call.shape)
        if isinstance(sizes[d], int) and size > 1 and (d < first or source.shape[d - first] == 1)
    ]
    return Labels(call.shape, (*moved.axes, *(Axis((d,), coupling.free(call.shape[d])) for d in spread)))


def filled(coupling: Coupling, call: Call) -> Labels:
    """`zeros`, `full` …: the same everywhere, so that a dimension of literal size may be shorter."""
    sizes = call.node_of("size")
    axes = [Axis((d,), coupling.free(n)) for d, n in enumerate(call.shape) if isinstance(sizes[d], int) and n > 1]
    return Labels(call.shape, tuple(axes))


def reindexed(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """`roll`, strided `slice`, `index_select`: surgery writes what is left of the order as an index table."""
    name, source = call.tensors()[0]
    if call.name == "slice":
        dims = [int(call["dim"])] if int(call.get("step", 1)) != 1 else []
        if dims and is_written(call.node):  # an index table would make a copy
            source = coupling.freeze_axes(source, dims, "writes into every other index of it")
        source = _without_batch(coupling, call, source, dims)
    elif call.name == "roll":
        dims = [int(d) for d in call.get("dims", ())] or list(range(len(source.shape)))
        source = _without_batch(coupling, call, source, dims)
    else:
        dims = [int(call["dim"])]
        if call.constant(call.node_of("index")) is None:
            source = coupling.freeze_axes(source, dims, "looks entries up in it")
    call.arguments[name] = source
    return move(coupling, call)


def _without_batch(coupling: Coupling, call: Call, source: Labels, dims: list[int]) -> Labels:
    """No table fits every batch: what shares a dimension with it is frozen."""
    sizes = sizes_of(call.node_of(call.tensors()[0][0]).meta["val"])
    shared = [dim for dim in dims if not isinstance(sizes[dim], int)]
    return coupling.freeze_axes(source, shared, "reorders it together with the batch")


def indexed(coupling: Coupling, call: Call) -> Labels:
    """`x[index, …]`: one constant table of indices picks them as it stands; any other freezes what it looks up in."""
    source: Labels = call["self"]
    tables = {dim: table for dim, table in enumerate(call.node_of("indices")) if table is not None}
    values = {dim: call.constant(table) for dim, table in tables.items()}
    (_, value), *others = values.items()
    if others or value is None or value.dtype != torch.int64 or value.dim() != 1:
        source = coupling.freeze_axes(source, list(tables), "looks entries up in it")
        values = {dim: torch.zeros(call["indices"][dim].shape, dtype=torch.int64) for dim in tables}
        if any(call["indices"][dim].shape and table.meta["val"].dtype == torch.bool for dim, table in tables.items()):
            source = coupling.freeze_axes(source, range(len(source.shape)), "selects by a mask")
    call.arguments["self"] = source
    axes = []
    for axis in source.axes:
        moved = label_tensor(axis, source.shape)[tuple(values.get(d, slice(None)) for d in range(len(source.shape)))]
        found, constant = read_off(moved)
        if found is not None:
            axes.append(found)
        elif constant > 0:
            coupling.freeze(np.array([constant]), "picks it out by its index")
    return _without_overlap(coupling, call.shape, axes)


_RESHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
_MOVES = """
    t mT numpy_T adjoint movedim
    moveaxis swapaxes swapdims split split_with_sizes chunk
    narrow flip repeat tile repeat_interleave
"""

RULES: dict[str, Rule] = {
    **dict.fromkeys((*_MOVES.split(), *_RESHAPES), move),
    **dict.fromkeys(("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "lift_fresh", "positive"), same),
    **dict.fromkeys(("expand", "broadcast_to"), expanded),
    **dict.fromkeys(("view_as", "reshape_as", "expand_as"), shaped),
    **dict.fromkeys(FILLS, filled),
    **dict.fromkeys(("permute", "transpose"), permuted),
    **dict.fromkeys(("select", "unbind"), picked),
    **dict.fromkeys(("slice", "roll", "index_select"), reindexed),
    "index": indexed,
    **dict.fromkeys(("pad", "constant_pad_nd"), padded),
    "cat": concatenate,
    "concat": concatenate,
    "stack": stack,
}
