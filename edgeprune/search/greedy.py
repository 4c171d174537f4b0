"""Greedy narrowing in the manner of NetAdapt (Yang et al., ECCV 2018, arXiv:1804.03230), steered by measurements.

Each step narrows a few groups so that the most exceeded figure shrinks by a set share: every promising group is
screened alone (accuracy after batch-norm re-estimation, `NetAdapt`: after a short fine-tuning, as in the paper), those
that cost the least accuracy for what they save are taken together, and the network is measured. The estimate (MACs for
latency, parameters for size ...) only says how much to take; how it relates to the figure is learned from the
measurements, and only they decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.records.budget import Budget, State
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import GroupSpace, Proposal, SearchSpace
from edgeprune.search.limits import accuracy_state, device_state, pressure
from edgeprune.search.script import Script, ScriptedStrategy

__all__ = ["Greedy", "NetAdapt"]

_SCREENED = 12  # groups tried in a step, at most
_STEP = 0.85  # what a step leaves of the figure, where the way is short
_STEPS_AHEAD = 6  # how many steps of equal share lead to the limit, where the way is long
_MARGIN = 0.99  # aim a little below the limit, so that its upper confidence bound is within
_NARROWEST_IN_A_STEP = 0.6  # what a step leaves of a group's width, at least
_NOISE = 0.002  # loss of accuracy that means nothing; what saves more wins then
_OOM_PRESSURE = 1.5  # out of memory by how much is unknown

# Which estimate stands for which figure; the first that the space knows.
_ESTIMATES: Mapping[str, tuple[str, ...]] = {
    "size": ("params", "macs"),
    "peak_memory": ("memory", "params", "macs"),
    "latency": ("macs", "params"),
    "energy": ("macs", "params"),
}


@dataclass(frozen=True, slots=True)
class _Narrowing:
    """One group narrowed to `width`: by which share of the dense model the estimate shrinks."""

    group: str
    width: int
    saving: float


class Greedy(ScriptedStrategy):
    """Narrows step by step until the device's limits are met, then one final trial; goes on if that misses them."""

    screening = Stage.SCREEN  # how far each group's own narrowing is taken before they are compared

    def __init__(self, space: SearchSpace, budget: Budget, baseline: Trial, *, seed: int = 0) -> None:  # noqa: ARG002
        """The seed has no effect: nothing is drawn."""
        super().__init__()
        self._space = space
        self._budget = budget
        self._baseline = baseline
        self._widths = {group.name: group.units for group in space.groups}
        self._estimates: dict[str, Mapping[str, float]] = {}
        self._elasticity: dict[str, float] = {}

    def script(self) -> Script:
        """Narrow and measure until within the device's limits; finish; go on while the final measurement is not."""
        current = self._baseline
        while True:
            if device_state(self._budget, current, self._baseline.figures) is State.MET:
                candidate = self._space.candidate(self._widths)
                (current,) = yield [Proposal(candidate, Stage.FINAL, "within the device's limits")]
                within = device_state(self._budget, current, self._baseline.figures) is State.MET
                if within or accuracy_state(self._budget, current, self._baseline.figures) is State.VIOLATED:
                    return
            figure, factor = self._step(current)
            narrowings = self._narrowings(figure, factor)
            if not narrowings:
                return
            screened = yield [
                Proposal(self._space.candidate({**self._widths, n.group: n.width}), self.screening, f"narrow {n.group}")
                for n in narrowings
            ]
            self._take(figure, factor, narrowings, screened)
            (current,) = yield [Proposal(self._space.candidate(self._widths), Stage.MEASURE, f"less {figure}")]
            self._learn(current)

    def _step(self, current: Trial) -> tuple[str, float]:
        """The figure that exceeds its limit the most, and the factor by which its estimate is to shrink now."""
        ratios = pressure(self._budget, current, self._baseline.figures)
        if current.outcome == Outcome.OOM.value:
            ratios["peak_memory"] = _OOM_PRESSURE
        if not ratios:  # device limits without a figure: none can steer, so all is narrowed
            ratios["latency.p50"] = _OOM_PRESSURE
        figure = max(ratios, key=lambda name: (ratios[name], name))
        whole = (_MARGIN / max(ratios[figure], 1.0)) ** (1 / self._elasticity.get(figure, 1.0))
        return figure, max(whole, min(_STEP, whole ** (1 / _STEPS_AHEAD)))

    def _narrowings(self, figure: str, factor: float) -> list[_Narrowing]:
        """Per group the widest width that alone would make the step, or as near as a step goes; best savers first."""
        now = self._estimate(self._widths, figure)
        wanted = now * (1 - factor)
        narrowings = []
        for group in self._space.groups:
            options = self._options(group)
            if not options:
                continue
            low, high = 0, len(options) - 1  # options are ascending: the widest that saves enough, else the narrowest
            while low < high:
                middle = (low + high + 1) // 2
                if now - self._estimate({**self._widths, group.name: options[middle]}, figure) >= wanted:
                    low = middle
                else:
                    high = middle - 1
            saving = now - self._estimate({**self._widths, group.name: options[low]}, figure)
            if saving > 0:
                narrowings.append(_Narrowing(group.name, options[low], saving))
        narrowings.sort(key=lambda narrowing: -narrowing.saving)
        return narrowings[:_SCREENED]

    def _options(self, group: GroupSpace) -> list[int]:
        """The widths that one step may take a group to: at least the next one, and not too far down at once."""
        now = self._widths[group.name]
        narrower = [width for width in group.widths if width < now]
        return [width for width in narrower if width >= _NARROWEST_IN_A_STEP * now] or narrower[-1:]

    def _take(self, figure: str, factor: float, narrowings: list[_Narrowing], screened: tuple[Trial, ...]) -> None:
        """Narrow the groups that lose the least accuracy for what they save, until the step is made."""
        start = self._estimate(self._widths, figure)
        best = max(_accuracy(trial) for trial in screened)

        def price(pair: tuple[_Narrowing, Trial]) -> float:
            return (max(best - _accuracy(pair[1]), 0.0) + _NOISE) / pair[0].saving

        for narrowing, _ in sorted(zip(narrowings, screened, strict=True), key=price):
            self._widths[narrowing.group] = narrowing.width
            if self._estimate(self._widths, figure) <= start * factor:
                return

    def _learn(self, measured: Trial) -> None:
        """How figures follow their estimates: ln(figure / dense) over ln(estimate / dense), kept within reason."""
        for figure in pressure(self._budget, measured, self._baseline.figures):
            dense, now = self._baseline.figures.get(figure), measured.figures[figure].value
            share = self._estimate(self._widths, figure)
            if dense is None or not dense.value or not now or not 0 < share < 1:
                continue
            slope = math.log(now / dense.value) / math.log(share)
            self._elasticity[figure] = min(max(slope, 0.3), 1.5)

    def _estimate(self, widths: Mapping[str, int], figure: str) -> float:
        candidate = self._space.candidate(widths)
        if candidate.id not in self._estimates:
            self._estimates[candidate.id] = self._space.estimate(candidate)
        estimates = self._estimates[candidate.id]
        for name in _ESTIMATES[figure.partition(".")[0]]:
            if name in estimates:
                return estimates[name]
        raise ValueError(f"the search space estimates none of {_ESTIMATES[figure.partition('.')[0]]}")


class NetAdapt(Greedy):
    """Fine-tunes each narrowing shortly before it compares them. Every network begins from the dense weights here,
    where the paper goes on from the last step's."""

    screening = Stage.TUNE


def _accuracy(trial: Trial) -> float:
    figure = trial.figures.get("accuracy")
    return figure.value if figure is not None and figure.value is not None else 0.0
