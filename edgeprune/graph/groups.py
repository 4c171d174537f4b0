"""Channel groups: which tensor dimensions shrink together, and the units that can be removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling

__all__ = ["ChannelGroup", "Member", "find_groups"]

Role = Literal["producer", "consumer", "affine"]
_BUFFERS = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One dimension of one parameter or buffer that belongs to a group.

    `indices` has shape (units, k), int64: the k indices of `dim` that unit u occupies are `indices[u]`.
    `role`: a producer computes the units (dimension 0 of a convolution's weight, and its bias), a consumer
    contracts them (dimension 1), affine is everything that acts on each unit apart (batch-norm, depthwise).
    """

    parameter: str  # dotted name
    dim: int
    indices: NDArray[np.int64]
    role: Role


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """A set of tensor dimensions that can only shrink together. Frozen groups say why they cannot shrink."""

    name: str
    units: int
    members: tuple[Member, ...]
    frozen: str | None = None


def find_groups(coupling: Coupling) -> tuple[tuple[ChannelGroup, ...], tuple[ChannelGroup, ...]]:
    """The prunable and the frozen groups, each in graph order.

    Units are the connected components of atoms; those that occupy the same dimensions, each with the same
    number of indices, form a group. Linear in the number of indices.
    """
    places = [(name, axis) for name, labels in coupling.parameters.items() for axis in labels.axes]
    if not places:
        return (), ()
    component = np.concatenate([coupling.component[axis.atoms] for _, axis in places])
    place = np.concatenate([np.full(len(axis.atoms), i) for i, (_, axis) in enumerate(places)])
    index = np.concatenate([np.arange(len(axis.atoms)) for _, axis in places])

    # A signature per component: a sum of random 64-bit numbers, one per place and occurrence.
    keys = np.random.default_rng(0).integers(0, 2**63, size=len(places), dtype=np.uint64)
    signature = np.zeros(len(coupling.component) + 1, np.uint64)
    np.add.at(signature, component, keys[place])

    frozen = np.zeros(len(signature), np.bool_)
    frozen[list(coupling.reasons)] = True
    prunable = _gather(coupling, places, component, place, index, signature, ~frozen[component])
    stuck = _frozen_groups(coupling, places, component, place, index, frozen)
    return tuple(prunable), tuple(stuck)


def _gather(
    coupling: Coupling,
    places: list[tuple[str, object]],
    component: NDArray[np.int64],
    place: NDArray[np.int64],
    index: NDArray[np.int64],
    signature: NDArray[np.uint64],
    chosen: NDArray[np.bool_],
) -> list[ChannelGroup]:
    component, place, index = component[chosen], place[chosen], index[chosen]
    group_of = signature[component]
    order = np.lexsort((index, component, place, group_of))
    component, place, index, group_of = component[order], place[order], index[order], group_of[order]
    starts = np.flatnonzero(np.r_[True, group_of[1:] != group_of[:-1]]) if len(group_of) else np.zeros(0, np.int64)
    found: list[tuple[int, ChannelGroup]] = []
    names: dict[str, int] = {}
    for start, stop in zip(starts, np.r_[starts[1:], len(group_of)], strict=True):
        found.append((int(place[start]), _group(coupling, places, component[start:stop], place[start:stop], index[start:stop])))
    found.sort(key=lambda item: (item[0], int(item[1].members[0].indices.min())))
    groups = []
    for _, group in found:
        names[group.name] = names.get(group.name, 0) + 1
        name = group.name if names[group.name] == 1 else f"{group.name}:{names[group.name]}"
        groups.append(ChannelGroup(name, group.units, group.members))
    return groups


def _group(
    coupling: Coupling,
    places: list[tuple[str, object]],
    component: NDArray[np.int64],
    place: NDArray[np.int64],
    index: NDArray[np.int64],
) -> ChannelGroup:
    """Rows are sorted by place, component, index."""
    starts = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])
    blocks = []
    for start, stop in zip(starts, np.r_[starts[1:], len(place)], strict=True):
        units = len(np.unique(component[start:stop]))
        blocks.append((int(place[start]), index[start:stop].reshape(units, -1)))
    rank = np.argsort(blocks[0][1].min(axis=1), kind="stable")  # units in the order of their first place
    members = tuple(_member(coupling, places, number, rows[rank]) for number, rows in blocks)
    first = next((m for m in members if m.role == "producer"), members[0])
    return ChannelGroup(_layer(first.parameter), len(rank), members)


def _member(coupling: Coupling, places: list[tuple[str, object]], number: int, indices: NDArray[np.int64]) -> Member:
    from edgeprune.graph.labels import Axis  # noqa: PLC0415  records of this module must import no torch

    name, axis = places[number]
    dim = cast("Axis", axis).dims[0]
    return Member(name, dim, np.ascontiguousarray(indices), cast("Role", coupling.roles.get((name, dim), "affine")))


def _frozen_groups(
    coupling: Coupling,
    places: list[tuple[str, object]],
    component: NDArray[np.int64],
    place: NDArray[np.int64],
    index: NDArray[np.int64],
    frozen: NDArray[np.bool_],
) -> list[ChannelGroup]:
    """Per dimension that a contraction or embedding produces, what of it is frozen, with the first reason."""
    groups = []
    for number, (name, axis) in enumerate(places):
        from edgeprune.graph.labels import Axis  # noqa: PLC0415

        dim = cast("Axis", axis).dims[0]
        if coupling.roles.get((name, dim)) != "producer" or name.endswith(".bias"):
            continue
        rows = (place == number) & frozen[component]
        if rows.any():
            member = Member(name, dim, index[rows][:, None], "producer")
            reason = coupling.reasons[int(component[rows][0])]
            groups.append(ChannelGroup(_layer(name), int(rows.sum()), (member,), reason))
    return groups


def _layer(parameter: str) -> str:
    """The module that a parameter belongs to; a bare parameter's own name."""
    module, _, last = parameter.rpartition(".")
    return module if module and last in {"weight", "bias", *_BUFFERS} else parameter
