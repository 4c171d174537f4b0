"""Channels that trade places, with one another or with space: shuffles, sliding windows and their columns."""

from __future__ import annotations

import numpy as np

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Axis, Labels
from edgeprune.graph.rules.movement import move

__all__ = ["RULES"]


def shuffled(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """`channel_shuffle`: the same positions of every group."""
    source, atoms = coupling.along(call["self"], 1)
    if atoms is not None:
        coupling.tie(atoms.reshape(int(call["groups"]), -1)[:1], atoms.reshape(int(call["groups"]), -1))
    call.arguments["self"] = source
    return move(coupling, call)


def pixels(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """`pixel_shuffle`: channels that become one go together; `pixel_unshuffle`: a channel passes on."""
    source: Labels = call["self"]
    source = coupling.freeze_axes(source, [-1, -2], "rearranges it")
    source, atoms = coupling.along(source, len(source.shape) - 3)
    if atoms is not None and call.name == "pixel_shuffle":
        each = atoms.reshape(-1, int(call["upscale_factor"]) ** 2)
        coupling.tie(each[:, :1], each)
    call.arguments["self"] = source
    return move(coupling, call)


def windows(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """`unfold` of one dimension into overlapping windows, which has to stay; the others pass on."""
    source: Labels = call["self"]
    call.arguments["self"] = coupling.freeze_axes(source, [int(call["dimension"])], "slides over it")
    return move(coupling, call)


def columns(coupling: Coupling, call: Call) -> Labels:
    """`im2col` (n, c, h, w) to (n, c × kernel, positions): each channel becomes as many rows as the kernel has taps."""
    source: Labels = call["self"]
    last = len(source.shape) - 1
    source = coupling.freeze_axes(source, [*range(last - 2), last - 1, last], "slides over it")
    axis = source.axis(last - 2)
    taps = call.shape[-2] // source.shape[last - 2]
    return Labels(call.shape, () if axis is None else (Axis((last - 2,), np.repeat(axis.atoms, taps)),))


def from_columns(coupling: Coupling, call: Call) -> Labels:
    """`col2im` (n, c × kernel, positions) to (n, c, h, w)."""
    source: Labels = call["self"]
    dim = len(source.shape) - 2
    source = coupling.freeze_axes(source, [*range(dim), dim + 1], "adds up along it")
    source, atoms = coupling.along(source, dim)
    if atoms is None:
        return Labels(call.shape)
    rows = atoms.reshape(call.shape[-3], -1)
    coupling.tie(rows[:, :1], rows)
    return Labels(call.shape, (Axis((dim,), rows[:, 0].copy()),))


RULES: dict[str, Rule] = {
    "channel_shuffle": shuffled,
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), pixels),
    "unfold": windows,
    "im2col": columns,
    "col2im": from_columns,
}
