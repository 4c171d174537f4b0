"""Uniform width: every group keeps the same share; the widest network within the device's limits is found by bisection.

Allowed widths are coarse (multiples of 8), so that two neighbouring uniform networks may lie far apart in latency.
Between them the groups are narrowed one by one, the one whose units matter least first. Accuracy falls as width
shrinks, so the widest is the best. Latency is a staircase of width and not quite monotone: after the bisection the
next wider networks are measured, too.
"""

from __future__ import annotations

from collections.abc import Generator

from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import GroupSpace, Proposal, SearchSpace
from edgeprune.search.limits import accuracy_state, device_state
from edgeprune.search.script import Batch, Script, ScriptedStrategy

__all__ = ["Uniform"]

_KEEP_STEPS = 400  # shares tried to find all uniform networks
_WIDER = 2  # how many networks beyond the bisection's boundary are measured


class Uniform(ScriptedStrategy):
    """Bisection over the distinct uniform networks by measurement, then a final trial of the widest that fits."""

    def __init__(self, space: SearchSpace, budget: Budget, baseline: Trial, *, seed: int = 0) -> None:  # noqa: ARG002
        """The seed has no effect: nothing is drawn."""
        super().__init__()
        self._budget = budget
        self._dense = baseline.figures
        self._networks = _networks(space)  # widest first; the first is the dense one
        self._states: dict[int, State] = {0: device_state(budget, baseline, self._dense)}

    def script(self) -> Script:
        """Bisect, look a little wider, finish; step narrower while a final measurement misses a device limit."""
        boundary = yield from self._bisect()
        if boundary < len(self._networks):
            for wider in range(boundary - 2, max(boundary - 2 - _WIDER, 0), -1):
                yield from self._measure(wider)
        choice = min((index for index, state in self._states.items() if state is State.MET), default=None)
        while choice is not None:
            (final,) = yield [Proposal(self._networks[choice], Stage.FINAL, "the widest within the device's limits")]
            within = device_state(self._budget, final, self._dense) is State.MET
            if within or accuracy_state(self._budget, final, self._dense) is State.VIOLATED:
                return  # accepted, or not accurate enough: then a narrower one is not either
            choice = yield from self._next_met(choice + 1)

    def _bisect(self) -> Generator[Batch, tuple[Trial, ...], int]:
        """The index of the widest network that meets the device's limits, as if width alone decided it."""
        if self._states[0] is State.MET:
            return 0
        missed, met = 0, len(self._networks)
        while met - missed > 1:
            middle = (missed + met) // 2
            if (yield from self._measure(middle)) is State.MET:
                met = middle
            else:
                missed = middle
        return met

    def _next_met(self, start: int) -> Generator[Batch, tuple[Trial, ...], int | None]:
        for index in range(start, len(self._networks)):
            if (yield from self._measure(index)) is State.MET:
                return index
        return None

    def _measure(self, index: int) -> Generator[Batch, tuple[Trial, ...], State]:
        if index not in self._states:
            (trial,) = yield [Proposal(self._networks[index], Stage.MEASURE, f"uniform network {index}")]
            self._states[index] = device_state(self._budget, trial, self._dense)
        return self._states[index]


def _networks(space: SearchSpace) -> tuple[Candidate, ...]:
    """All networks from the dense one to the narrowest; each group's width never grows on the way."""
    widths = space.uniform(1.0)
    networks = [space.candidate(widths)]
    for step in range(_KEEP_STEPS - 1, -1, -1):
        narrower = space.uniform(step / _KEEP_STEPS)
        changed = [group for group in space.groups if narrower[group.name] != widths[group.name]]
        for group in sorted(changed, key=lambda g: _lost(g, widths[g.name], narrower[g.name])):
            widths = {**widths, group.name: narrower[group.name]}
            networks.append(space.candidate(widths))
    return tuple(networks)


def _lost(group: GroupSpace, before: int, after: int) -> float:
    """The mean importance of the units that a narrowing removes."""
    scores = sorted(group.scores, reverse=True)[after:before]
    return sum(scores) / len(scores)
