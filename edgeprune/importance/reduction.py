"""How the scores of a group's members become one score per unit: which members, how joined, how normalised.

importance: l1                                             # the defaults
importance: {name: l1, members: all, reduce: max, normalise: none}
importance: "l1:members=all,reduce=max,normalise=none"     # the same, and on the command line
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import UsageError, did_you_mean
from edgeprune.graph.groups import ChannelGroup, Member

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["MemberReduction", "Members", "Normalise", "Place", "Reduce", "Reduction"]

Members = Literal["producers", "consumers", "all", "gates"]
Reduce = Literal["mean", "sum", "max", "l2"]
Normalise = Literal["mean", "max", "standard", "size", "none"]

Place = tuple[Member, ...]  # members whose elements are scored together

_REDUCE: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean": lambda values: values.mean(axis=0),
    "sum": lambda values: values.sum(axis=0),
    "max": lambda values: values.max(axis=0),
    "l2": lambda values: np.sqrt((values * values).sum(axis=0)),
}
_CHOICES = {"members": get_args(Members), "reduce": get_args(Reduce), "normalise": get_args(Normalise)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """The parameters that all importances but `random` share; raises UsageError.

    `reduce`, how the scores of a unit's members are joined: mean, sum, max, or l2 (the root of the sum of squares).
    `normalise`, how units of different groups are made comparable:
      mean, max   divided by the mean or the largest score of the group
      standard    the mean taken off, and divided by the standard deviation (scores below 0)
      size        divided by the number of weights that a unit has in the members
      none        as they are
    """

    reduce: Reduce = "mean"
    normalise: Normalise = "mean"

    def __post_init__(self) -> None:
        for field in fields(self):
            value, valid = getattr(self, field.name), _CHOICES[field.name]
            if value not in valid:
                raise UsageError(f"{field.name} cannot be {value!r}", hint=did_you_mean(str(value), valid))

    def join(
        self,
        group: ChannelGroup,
        places: Sequence[Place],
        scores: Sequence[NDArray[np.float64]],
        weights: Mapping[str, torch.Tensor],
    ) -> NDArray[np.float64]:
        """One score per unit of `scores`, which has one array of shape (units,) per place."""
        joined = _REDUCE[self.reduce](np.stack(scores)) if scores else np.zeros(group.units)
        if self.normalise == "standard":
            spread = joined.std()
            centred: NDArray[np.float64] = joined - joined.mean()
            return centred / spread if spread > 0 else centred
        divisor = 1.0
        if self.normalise == "size":
            divisor = float(sum(_elements(member, weights) for place in places for member in place))
        elif self.normalise != "none" and joined.size:
            divisor = float(joined.mean() if self.normalise == "mean" else joined.max())
        return joined / divisor if divisor > 0 else joined


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReduction(Reduction):
    """And what of a group is scored, `members`:

      producers   the weights that compute the units
      consumers   the weights that take them in
      all         both, depthwise weights, and the scales of normalisations (DepGraph, Fang et al. 2023, 2301.12900)
      gates       the normalisations, scale and shift as one; the producers where there is none
    Biases are never scored for themselves. A group without the members asked for is scored by those it has.
    """

    members: Members = "producers"

    def places(
        self, module: nn.Module, groups: Sequence[ChannelGroup], weights: Mapping[str, torch.Tensor]
    ) -> dict[str, tuple[Place, ...]]:
        """Per group what is scored; never nothing."""
        from edgeprune.graph.normalisation import normalisations

        norms = normalisations(module) if self.members in ("all", "gates") else ()
        shifts = {norm.weight: norm.bias for norm in norms if norm.weight is not None}
        return {group.name: self._places(group, weights, shifts) for group in groups}

    def _places(
        self, group: ChannelGroup, weights: Mapping[str, torch.Tensor], shifts: Mapping[str, str | None]
    ) -> tuple[Place, ...]:
        _check(group, weights)
        matrices = [m for m in group.members if weights[m.parameter].ndim >= 2]
        if self.members == "gates":
            scales = [m for m in group.members if m.parameter in shifts]
            if scales:
                by_name = {m.parameter: m for m in group.members if m not in scales}
                shift = [by_name.get(shifts[m.parameter] or "") for m in scales]
                return tuple((s,) if b is None else (s, b) for s, b in zip(scales, shift, strict=True))
        if self.members == "all":
            found = [m for m in group.members if weights[m.parameter].ndim >= 2 or m.parameter in shifts]
        else:
            role = "consumer" if self.members == "consumers" else "producer"
            found = [m for m in matrices if m.role == role]
        return tuple((member,) for member in found or _substitutes(group, matrices))


def _check(group: ChannelGroup, weights: Mapping[str, torch.Tensor]) -> None:
    for member in group.members:
        if member.parameter not in weights:
            raise UsageError(f"group {group.name!r} names {member.parameter!r}, which the module does not have")


def _substitutes(group: ChannelGroup, matrices: Sequence[Member]) -> Sequence[Member]:
    """What is scored in a group without the members asked for: every group can be scored."""
    choices: tuple[Sequence[Member], ...] = (
        [m for m in matrices if m.role == "producer"],
        [m for m in group.members if m.role == "producer"],
        [m for m in matrices if m.role == "affine"],
        [m for m in matrices if m.role == "consumer"],
        group.members,
    )
    return next((choice for choice in choices if choice), ())


def _elements(member: Member, weights: Mapping[str, torch.Tensor]) -> float:
    """How many elements of the tensor belong to one unit."""
    tensor = weights[member.parameter]
    return tensor.numel() / tensor.shape[member.dim] * float(member.indices.shape[1])
