"""Channel groups: which tensor dimensions shrink together, and the units that can be removed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgeprune.graph.coupling import Coupling
    from edgeprune.graph.labels import Axis

__all__ = ["ChannelGroup", "Member", "find_groups"]

Role = Literal["producer", "consumer", "affine"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Member:
    """One dimension of one parameter or buffer that belongs to a group.

    `indices` has shape (units, k), int64: the k indices of `dim` that unit u occupies are `indices[u]`.
    `role`: a producer computes the units (dimension 0 of a convolution's weight, and its bias), a consumer
    contracts them (dimension 1), affine is everything that acts on each unit apart (batch-norm, depthwise). Members may
    share their `indices`, which nobody should change.
    """

    parameter: str  # dotted name
    dim: int
    indices: NDArray[np.int64]
    role: Role

    def __repr__(self) -> str:
        units, each = self.indices.shape
        return f"Member({self.parameter!r}, dim {self.dim}, {self.role}, {units} units of {each})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ChannelGroup:
    """A set of tensor dimensions that can only shrink together. Frozen groups say why they cannot shrink."""

    name: str
    units: int
    members: tuple[Member, ...]
    frozen: str | None = None

    def __repr__(self) -> str:
        frozen = "" if self.frozen is None else f", frozen: {self.frozen}"
        return f"ChannelGroup({self.name!r}, {self.units} units, {len(self.members)} members{frozen})"


Place = tuple[str, int]  # a parameter and one of its dimensions


@dataclass(frozen=True, slots=True, eq=False)
class _Occurrences:
    """Every index of every pattern, one row each: its component, its pattern (a number), its index.

    Places whose indices go together one by one share a pattern: most of a network's do.
    """

    component: NDArray[np.int64]
    pattern: NDArray[np.int64]
    index: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> _Occurrences:
        return _Occurrences(self.component[rows], self.pattern[rows], self.index[rows])


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Every labelled dimension, in graph order, and which of them have the same pattern."""

    all: list[Place]
    pattern: list[int]  # of each place
    of: list[list[int]]  # the places of each pattern, by number


def find_groups(coupling: Coupling) -> tuple[tuple[ChannelGroup, ...], tuple[ChannelGroup, ...]]:
    """The prunable and the frozen groups, each in graph order; every tensor with dimensions is in one of them.

    Units are the connected components of atoms; those that occupy the same dimensions, each with the same
    number of indices, form a group. Linear in the number of indices, but for sorting them.
    """
    axes = [(name, axis) for name, labels in coupling.parameters.items() for axis in labels.axes]
    if not axes:
        return (), ()
    patterns: dict[int, tuple[int, Axis]] = {}
    pattern = [patterns.setdefault(coupling.alike(axis.atoms), (len(patterns), axis))[0] for _, axis in axes]
    of: list[list[int]] = [[] for _ in patterns]
    for place, number in enumerate(pattern):
        of[number].append(place)
    places = _Places([(name, axis.dims[0]) for name, axis in axes], pattern, of)
    sizes = np.array([len(axis.atoms) for _, axis in patterns.values()])
    ends = np.cumsum(sizes)
    rows = _Occurrences(
        coupling.component[np.concatenate([axis.atoms for _, axis in patterns.values()])],
        np.repeat(np.arange(len(patterns)), sizes),
        np.arange(ends[-1]) - np.repeat(ends - sizes, sizes),
    )
    frozen = np.zeros(int(coupling.component.max()) + 1, np.bool_)
    frozen[list(coupling.reasons)] = True
    stuck = frozen[rows.component]
    groups = _prunable(coupling, places, rows[~stuck])
    listed = {member.parameter for group in groups for member in group.members}
    alone = [group for group in groups if all(m.parameter in coupling.buffers for m in group.members)]
    alone = [group for group in alone if all(m.role == "affine" for m in group.members)]
    groups = tuple(group for group in groups if group not in alone)
    single = [replace(group, frozen="is a single unit") for group in groups if group.units == 1]
    single += [replace(group, frozen="is a constant that goes with no parameter") for group in alone]
    one = np.zeros((1, 1), np.int64)
    single += [
        ChannelGroup(_layer(name), 1, (Member(name, 0, one, "affine"),), "is a single unit")
        for name, labels in coupling.parameters.items()
        if labels.shape and set(labels.shape) == {1}
    ]
    frozen_groups = [*single, *_stuck(coupling, places, rows[stuck], listed)]
    order = {name: i for i, name in enumerate(coupling.parameters)}
    frozen_groups.sort(key=lambda group: order[group.members[0].parameter])
    return tuple(group for group in groups if group.units > 1), tuple(frozen_groups)


def _prunable(coupling: Coupling, places: _Places, rows: _Occurrences) -> tuple[ChannelGroup, ...]:
    # A signature per component: a sum of random 64-bit numbers, one per place and occurrence.
    keys = np.zeros(len(places.of), np.uint64)
    np.add.at(keys, places.pattern, np.random.default_rng(0).integers(0, 2**63, size=len(places.all), dtype=np.uint64))
    signature = np.zeros(int(coupling.component.max()) + 1, np.uint64)
    np.add.at(signature, rows.component, keys[rows.pattern])
    number = _first_seen(signature[rows.component])
    # By group, pattern and component; rows come by pattern and index, and a stable sort leaves the indices in order.
    order = np.argsort((number * len(keys) + rows.pattern) * len(signature) + rows.component, kind="stable")
    number, rows = number[order], rows[order]
    blocks: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
    for start, end, units in _blocks(number, rows):
        block = rows.index[start:end].reshape(units, -1)
        found = blocks.setdefault(int(number[start]), [])
        found.extend((place, block) for place in places.of[int(rows.pattern[start])])
    groups = sorted((_group(coupling, places, found) for found in blocks.values()), key=lambda group: group[0])
    seen: dict[str, int] = {}
    named = []
    for _, group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        name = group.name if seen[group.name] == 1 else f"{group.name}:{seen[group.name]}"
        named.append(group if name == group.name else replace(group, name=name))
    return tuple(named)


def _first_seen(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The values numbered from 0, in the order in which they first appear; long runs of equal ones are expected."""
    starts = np.flatnonzero(np.concatenate(([len(values) > 0], values[1:] != values[:-1])))
    known: dict[int, int] = {}
    numbers = [known.setdefault(value, len(known)) for value in values[starts].tolist()]
    return np.repeat(np.array(numbers, np.int64), np.diff(starts, append=len(values)))


def _blocks(number: NDArray[np.int64], rows: _Occurrences) -> list[tuple[int, int, int]]:
    """For each pattern of each group the first of its rows, the end of them, and how many units they are."""
    if not len(number):
        return []
    begins = np.ones(len(number), np.bool_)
    begins[1:] = (number[1:] != number[:-1]) | (rows.pattern[1:] != rows.pattern[:-1])
    starts = np.flatnonzero(begins)
    begins[1:] |= rows.component[1:] != rows.component[:-1]
    units = np.add.reduceat(begins, starts, dtype=np.int64)
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(number)], units.tolist(), strict=True))


def _group(
    coupling: Coupling, places: _Places, blocks: list[tuple[int, NDArray[np.int64]]]
) -> tuple[tuple[int, int], ChannelGroup]:
    """The group that has these indices, by unit, of these places; and where it begins, which orders the groups."""
    blocks.sort(key=lambda block: block[0])
    place, leading = blocks[0]
    first = leading[:, 0]
    if not (first[1:] > first[:-1]).all():  # units in the order of their first place
        order = np.argsort(first, kind="stable")
        ordered = {id(block): block[order] for _, block in blocks}
        blocks = [(place, ordered[id(block)]) for place, block in blocks]
    members = tuple(
        Member(*places.all[place], block, _role(coupling, places.all[place]))  # those of one pattern share it
        for place, block in blocks
    )
    named = next((m for m in members if m.role == "producer"), members[0])
    return (place, int(leading.min())), ChannelGroup(_layer(named.parameter), len(first), members)


def _role(coupling: Coupling, place: Place) -> Role:
    return cast("Role", coupling.roles.get(place, "affine"))


def _stuck(coupling: Coupling, places: _Places, rows: _Occurrences, listed: set[str]) -> list[ChannelGroup]:
    """Per dimension that computes units, what of it is frozen, with the first reason; then what is not yet listed.

    A bias, or what else a layer has besides its weight, goes with the layer.
    """
    groups: list[ChannelGroup] = []
    ends = np.searchsorted(rows.pattern, np.arange(len(places.of) + 1)).tolist()
    runs = [
        (place, slice(ends[pattern], ends[pattern + 1]))
        for place, pattern in zip(places.all, places.pattern, strict=True)
        if ends[pattern] < ends[pattern + 1]
    ]
    runs.sort(key=lambda item: _role(coupling, item[0]) != "producer" or item[0][0].endswith(".bias"))
    for (name, dim), run in runs:
        role = _role(coupling, (name, dim))
        producer = role == "producer" and not name.endswith(".bias")
        if not producer and name in listed:
            continue
        listed.add(name)
        member = Member(name, dim, rows.index[run][:, None], role)
        reason = coupling.reasons[int(rows.component[run.start])]
        same = [i for i, g in enumerate(groups) if g.name == _layer(name) and g.units == len(member.indices)]
        if same and not producer:
            groups[same[0]] = replace(groups[same[0]], members=(*groups[same[0]].members, member))
        else:
            groups.append(ChannelGroup(_layer(name), len(member.indices), (member,), reason))
    return groups


def _layer(parameter: str) -> str:
    """The module that a parameter belongs to; a bare parameter's own name."""
    module, _, last = parameter.rpartition(".")
    return module if module and last in {"weight", "bias", "running_mean", "running_var"} else parameter
