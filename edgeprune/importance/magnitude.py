"""Importance from the weights alone: L1, L2, LAMP, batch-norm scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph.groups import ChannelGroup
from edgeprune.importance.base import ImportanceContext, Scores, arrays, tensors, unit_sums
from edgeprune.importance.reduction import MemberReduction, Normalise, Place, Reduction

if TYPE_CHECKING:
    from torch import nn

__all__ = ["L1", "L2", "BatchNormScale", "Lamp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class L1(MemberReduction):
    """Sum of absolute weights of each unit (Li et al. 2017, arXiv:1608.08710)."""

    needs_data = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:  # noqa: ARG002
        return _norms(self, module, groups, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class L2(MemberReduction):
    """Euclidean norm of the weights of each unit.

    With `members=all,reduce=l2,normalise=none` the group norm of DepGraph (Fang et al. 2023, arXiv:2301.12900).
    """

    needs_data = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:  # noqa: ARG002
        return _norms(self, module, groups, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lamp(MemberReduction):
    """Layer-adaptive magnitude of units: |w_u|² / Σ |w_v|² over the units v with |w_v| ≥ |w_u| (Lee et al. 2021).

    arXiv:2010.07611, for units in place of single weights: |w_u| is the (reduced) L2 norm. The greatest
    unit of every group scores 1; what removing a unit distorts, relative to what would be left. Made to be compared
    between groups as it is, so there is no normalisation by default.
    """

    normalise: Normalise = "none"
    needs_data = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        weights = tensors(module)
        plain = L2(members=self.members, reduce=self.reduce, normalise="none").score(module, groups, context)
        places = self.places(module, groups, weights)
        return {g.name: self.join(g, places[g.name], [_lamp(plain[g.name] ** 2)], weights) for g in groups}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNormScale(Reduction):
    """Absolute scale of the normalisations that act on each unit (network slimming, Liu et al. 2017, arXiv:1708.06519).

    Mean over the group's normalisations (batch, layer, group normalisation: whatever has a weight per channel),
    divided by the mean over the group. A group without any is scored by L2, and the context's progress says so.
    """

    needs_data = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        from edgeprune.graph.normalisation import normalisations

        weights = tensors(module)
        scales = {normalisation.weight for normalisation in normalisations(module)}
        places = {group.name: tuple((m,) for m in group.members if m.parameter in scales) for group in groups}
        values = arrays(weights, (m.parameter for found in places.values() for (m,) in found))
        scores: Scores = {}
        for group in groups:
            if places[group.name]:
                norms = [_norm(values, place, 1) for place in places[group.name]]
                scores[group.name] = self.join(group, places[group.name], norms, weights)
        without = [group for group in groups if group.name not in scores]
        if without:
            names = ", ".join(group.name for group in without[:3]) + (", …" if len(without) > 3 else "")
            context.progress.say(
                f"bn_scale: {len(without)} of {len(groups)} groups have no normalisation and are scored by l2: {names}"
            )
            scores |= L2(reduce=self.reduce, normalise=self.normalise).score(module, without, context)
        return scores


def _norms(reduction: MemberReduction, module: nn.Module, groups: Sequence[ChannelGroup], order: int) -> Scores:
    weights = tensors(module)
    places = reduction.places(module, groups, weights)
    values = arrays(weights, (m.parameter for found in places.values() for place in found for m in place))
    scores: Scores = {}
    for group in groups:
        norms = [_norm(values, place, order) for place in places[group.name]]
        scores[group.name] = reduction.join(group, places[group.name], norms, weights)
    return scores


def _norm(values: dict[str, NDArray[np.floating]], place: Place, order: int) -> NDArray[np.float64]:
    """The L1 or L2 norm of each unit's elements at one place; (units,)."""
    if order == 1:
        return sum((unit_sums(values[m.parameter], m, np.abs) for m in place), start=np.zeros(len(place[0].indices)))
    squares = (unit_sums(values[m.parameter], m, _square) for m in place)
    root: NDArray[np.float64] = np.sqrt(sum(squares, start=np.zeros(len(place[0].indices))))
    return root


def _square(values: NDArray[np.floating]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.square(values, dtype=np.float64)
    return squares


def _lamp(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(-squares, kind="stable")
    totals = np.cumsum(squares[order])  # of all units down to this one
    # Units that tie have the same score: the sum down to the last of them.
    last = np.searchsorted(-squares[order], -squares, side="right") - 1
    below = totals[last]
    return np.divide(squares, below, out=np.zeros_like(squares), where=below > 0)
