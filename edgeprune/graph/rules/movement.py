"""Data movement: the operator itself runs on an integer label tensor, and the index map is read off the result."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

from edgeprune.graph.coupling import Call, Coupling, Rule
from edgeprune.graph.labels import Axis, Labels, label_tensor, read_off
from edgeprune.graph.rules.elementwise import broadcast

__all__ = ["RULES"]

_PADDED = -1  # what padding puts into a label tensor


def move(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """Any operator that copies elements of one tensor to other places."""
    name, source = call.tensors()[0]
    axes: list[list[Axis]] = [[] for _ in call.shapes]
    for axis in source.axes:
        try:
            moved = _run(call, name, label_tensor(axis, source.shape))
        except RuntimeError:  # this variant does not work on integers
            coupling.freeze(axis.atoms, "has no pruning rule in this form")
            continue
        covered: list[np.ndarray[Any, Any]] = []
        for out, result in zip(axes, moved, strict=True):
            found, constant = read_off(result)
            if found is not None:
                out.append(_with_padding(coupling, found))
            elif constant > 0:
                covered.append(np.array([constant]))
        for atoms in covered:  # one index was picked out: what follows depends on it alone
            coupling.freeze(atoms, "picks it out by its index")
    outputs = [_without_overlap(coupling, shape, found) for shape, found in zip(call.shapes, axes, strict=True)]
    return outputs if isinstance(call.node.meta["val"], list | tuple) else outputs[0]


def _run(call: Call, name: str, labels: torch.Tensor) -> list[torch.Tensor]:
    arguments = {key: _materialise(value) for key, value in call.arguments.items()}
    arguments[name] = labels
    if call.name == "view":  # the label tensor is expanded, and may not be viewable where the real one is
        return [labels.reshape(arguments["size"])]
    if call.name == "pad" and call["mode"] != "constant":  # repeats indices; not there for integers
        arguments[name] = labels.double()
    elif "pad" in call.name:
        arguments["value"] = _PADDED
    result = cast("Any", call.node.target)(**{("self" if k == "self" else k): v for k, v in arguments.items()})
    results = result if isinstance(result, list | tuple) else [result]
    return [item.to(torch.int64) for item in results]


def _materialise(value: Any) -> Any:
    """Other tensor arguments only lend their shape (view_as, expand_as)."""
    if isinstance(value, Labels):
        return torch.empty(1).expand(value.shape)
    return value


def _with_padding(coupling: Coupling, axis: Axis) -> Axis:
    padded = axis.atoms == _PADDED
    if not padded.any():
        return axis
    atoms = axis.atoms.copy()
    atoms[padded] = coupling.fresh(int(padded.sum()))
    return Axis(axis.dims, atoms)


def _without_overlap(coupling: Coupling, shape: tuple[int, ...], axes: list[Axis]) -> Labels:
    """Where two axes ended up on one dimension, an index would depend on both: the later one is frozen."""
    kept: list[Axis] = []
    for axis in axes:
        if any(set(axis.dims) & set(other.dims) for other in kept):
            coupling.freeze(axis.atoms, "merges two prunable dimensions into one")
        else:
            kept.append(axis)
    return Labels(shape, tuple(kept))


def concatenate(coupling: Coupling, call: Call) -> Labels:
    """`cat` and `stack`: along the dimension the atoms follow each other, on all others they are tied."""
    name = "tensors"
    inputs = cast("list[Labels]", [item for item in call[name] if item.shape != (0,)])
    stacked = call.name == "stack"
    dim = int(call.get("dim", 0)) % len(call.shape)
    if stacked:
        inputs = [_unsqueezed(labels, dim) for labels in inputs]
    along = [labels.axis(dim) for labels in inputs]
    dims = {axis.dims for axis in along if axis is not None}
    joined: list[Axis] = []
    if stacked:
        return _stack(coupling, call, inputs, dim)
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


def _stack(coupling: Coupling, call: Call, inputs: list[Labels], dim: int) -> Labels:
    """Each input keeps its atoms at its own index of the new dimension, as a joint axis."""
    places = {axis.dims for labels in inputs for axis in labels.axes}
    joined = []
    for dims in sorted(places):
        found = [next((a for a in labels.axes if a.dims == dims), None) for labels in inputs]
        if any(axis is None for axis in found) or any(set(dims) & set(o) for o in places if o != dims):
            for axis in found:
                if axis is not None:
                    coupling.freeze(axis.atoms, "stacks it onto a fixed dimension")
            continue
        atoms = np.stack([axis.atoms for axis in found if axis is not None])
        joined.append(Axis((dim, *dims), atoms).moved((dim, *dims)))
    return Labels(call.shape, tuple(joined))


def _unsqueezed(labels: Labels, dim: int) -> Labels:
    shape = (*labels.shape[:dim], 1, *labels.shape[dim:])
    return Labels(shape, tuple(Axis(tuple(d + (d >= dim) for d in a.dims), a.atoms) for a in labels.axes))


def strided(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """A slice with a step cannot be written on a narrower dimension: it freezes what it strides over."""
    if int(call.get("step", 1)) != 1:
        name, source = call.tensors()[0]
        call.arguments[name] = coupling.freeze_axes(source, [int(call["dim"])], "strides over it")
    return move(coupling, call)


def rolled(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    name, source = call.tensors()[0]
    dims = list(call.get("dims", ())) or list(range(len(source.shape)))
    call.arguments[name] = coupling.freeze_axes(source, dims, "rolls it")
    return move(coupling, call)


_MOVES = """
    view reshape _unsafe_view view_as reshape_as flatten unflatten permute transpose t mT numpy_T adjoint movedim
    moveaxis     swapaxes swapdims squeeze unsqueeze expand expand_as broadcast_to split split_with_sizes chunk unbind
    select narrow flip constant_pad_nd pad repeat tile repeat_interleave pixel_shuffle pixel_unshuffle
    contiguous clone detach alias lift_fresh_copy lift_fresh detach_ positive
"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVES.split(), move),
    "slice": strided,
    "roll": rolled,
    "cat": concatenate,
    "concat": concatenate,
    "stack": concatenate,
}
