"""What a planning strategy knows: limits, trials, and the cost models as the measurements so far have them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import SearchSpace
from edgeprune.search.calibration import calibrated, residual_margin
from edgeprune.search.costs import MetricModel
from edgeprune.search.limits import accuracy_state, device_state, pressure, ruled_out
from edgeprune.search.problem import Choice, predicted_loss

__all__ = ["Knowledge"]

_HOPED = (0.03, 0.1)  # by which share, at least (but of exact figures) and at most, a prediction is thought too high
_NEAR_MISS = 1.05  # of a limit
_NEAR = math.log(1.3)  # of the limit, either way: so near is what was measured there told by ...
_TELLING = 3  # ... so many measurements, unless
_SURPRISE = 3.0  # times the margin, but at least by ...
_LEAST_SURPRISE = 0.04  # ... so much, what is measured differs from what is predicted
_SHRINK = 0.85  # of what a network that does not fit was predicted to need, the next one may need so much
# What stands for a figure that nothing predicts, where a network must become smaller all the same.
_STANDS_FOR: Mapping[str, tuple[str, ...]] = {
    "latency": ("latency", "energy", "size"),
    "energy": ("energy", "latency", "size"),
    "peak_memory": ("peak_memory", "size", "latency"),
    "size": ("size", "peak_memory", "latency"),
}


@dataclass(slots=True)
class Knowledge:
    """Trials are added as they are told; all else follows from them."""

    space: SearchSpace
    budget: Budget
    baseline: Trial
    prior: Mapping[str, MetricModel]
    trials: list[Trial] = field(default_factory=list)
    measured: int = 0  # trials that went to the device, the dense model's not counted
    _repeated: set[str] = field(default_factory=set)  # candidates that were measured by two trials of the same stage
    _fitted: dict[str, MetricModel] = field(default_factory=dict)  # to the trials; empty where one came since

    @property
    def dense(self) -> Mapping[str, Figure]:
        """The dense model's figures."""
        return self.baseline.figures

    @property
    def limits(self) -> dict[str, float]:
        """Per figure of the device that is predicted, its absolute limit."""
        bounds = self._bounds()
        return {figure: bound for figure, bound in bounds.items() if figure in self.prior}

    @property
    def unplanned(self) -> tuple[str, ...]:
        """Figures with a limit that nothing predicts: only a measurement decides."""
        return tuple(figure for figure in self._bounds() if figure not in self.prior)

    def add(self, trial: Trial) -> None:
        """A trial more. A second MEASURE of a network takes the first one's place."""
        first = [t for t in self.trials if t.stage is trial.stage is Stage.MEASURE and t.candidate == trial.candidate]
        if first:
            self.trials.remove(first[0])
            self._repeated.add(trial.candidate.id)
        self.trials.append(trial)
        self.measured += trial.stage.is_measured
        self._fitted = {}

    def state(self, trial: Trial) -> State:
        """The device's limits at the trial."""
        return device_state(self.budget, trial, self.dense)

    def accurate(self, trial: Trial) -> bool:
        """No limit on accuracy is violated."""
        return accuracy_state(self.budget, trial, self.dense) is not State.VIOLATED

    def met(self) -> list[Trial]:
        """Trials that were measured within the device's limits, and no later trial of the same was not."""
        last: dict[str, Trial] = {}
        for trial in self.trials:
            if trial.stage.is_measured and (trial.candidate.id not in last or self.state(trial) is not State.MET):
                last[trial.candidate.id] = trial
        return [trial for trial in last.values() if self.state(trial) is State.MET]

    def missed(self) -> tuple[Choice, ...]:
        """The choices that were measured and not found within the device's limits."""
        found = {
            trial.candidate.id: Choice.of(trial.candidate, self.space)
            for trial in (self.baseline, *self.trials)
            if trial.stage.is_measured and self.state(trial) is not State.MET
        }
        return tuple(found.values())

    def too_large(self) -> tuple[Choice, ...]:
        """What the device could not run."""
        return tuple(
            Choice.of(trial.candidate, self.space) for trial in (self.baseline, *self.trials) if ruled_out(trial)
        )

    def metrics(self) -> dict[str, MetricModel]:
        """The cost models, recalibrated from all measurements so far, with the margin that these suggest."""
        if not self._fitted:
            bounds = self._bounds()
            for figure, metric in self.prior.items():
                seen = self._seen(figure)
                limit = bounds.get(figure, seen[-1][1] if seen else 0.0)
                model = calibrated(metric, seen, limit)
                margin = residual_margin(model, seen, limit) if limit > 0 else 0.0
                self._fitted[figure] = replace(model, margin=margin)
        return self._fitted

    def expected(self, candidate: Candidate) -> dict[str, tuple[float, float]]:
        """Per figure between what a measurement should come out, where measurements near the limit tell.

        What is out of it is an outlier, or news; a second measurement says which.
        """
        found = {}
        for figure, limit in self.limits.items():
            if sum(abs(math.log(value / limit)) < _NEAR for _, value in self._seen(figure)) >= _TELLING:
                metric = self.metrics()[figure]
                predicted, off = metric.predict(candidate), 1 + max(_SURPRISE * metric.margin, _LEAST_SURPRISE)
                found[figure] = (predicted / off, predicted * off)
        return found

    def doubtful(self) -> Candidate | None:
        """What was measured once, beyond a limit and far above what is predicted by now: within it, or nearly.

        All else that was measured of it must be within the limits.
        """
        for trial in self.trials:
            if trial.stage is Stage.MEASURE and trial.measurements == 1 and trial.candidate.id not in self._repeated:
                expected, metrics, limits = self.expected(trial.candidate), self.metrics(), self.limits
                over = [f for f, ratio in pressure(self.budget, trial, self.dense).items() if ratio > 1]
                if over and all(
                    name in expected
                    and (trial.figures[name].value or 0.0) > expected[name][1]
                    and metrics[name].predict(trial.candidate) <= limits[name] * _NEAR_MISS
                    for name in over
                ):
                    return trial.candidate
        return None

    def aims(self, slack: float = 0.0, margin: float = 1.0) -> dict[str, float]:
        """The limits, less what measuring adds (the upper confidence bound) and what prediction may miss.

        With `slack`, so far of the way (in logarithms) back to the dense model; `margin` is the share of the safety
        margin that is kept. Where that is negative, predictions may exceed the limits: they, and what is assumed of a
        measurement's upper bound, may be too high. What final measurements exceeded a limit by tightens it by as much.
        """
        found, excess = {}, self.excess()
        for figure, metric in self.metrics().items():
            if figure in self.limits:
                limit = self.limits[figure]
                upper, (least, most) = self._upper_ratio(figure), _HOPED
                hoped = 1 + margin * min(max(metric.margin, least if upper > 1 else 0.0), most)
                safe = upper * (1 + margin * metric.margin) if margin >= 0 else hoped
                aim = limit / (safe * excess.get(figure, 1.0))
                whole = metric.predict(Candidate())
                found[figure] = aim * (whole / aim) ** slack if 0 < aim < whole else aim
        return found

    def excess(self) -> dict[str, float]:
        """Per figure the most that the upper bound of a final measurement was times the limit, where it was above.

        One alone that was far above may be an outlier (the same network was measured within the limits before): it
        counts as a near miss until another one is as far.
        """
        above: dict[str, list[float]] = {}
        for trial in self.trials:
            if trial.stage is Stage.FINAL:
                for figure, ratio in pressure(self.budget, trial, self.dense).items():
                    above.setdefault(figure, []).append(ratio)
        found = {}
        for figure, ratios in above.items():
            second, first = sorted([1.0, *ratios])[-2:]
            found[figure] = max(second, min(first, _NEAR_MISS))
        return {figure: ratio for figure, ratio in found.items() if ratio > 1}

    def well_within(self) -> list[Trial]:
        """Those of `met` that would be within the limits even where a final measurement exceeds them as before."""
        excess = self.excess()
        return [
            trial
            for trial in self.met()
            if all(
                ratio * excess.get(figure, 1.0) <= 1.0
                for figure, ratio in pressure(self.budget, trial, self.dense).items()
            )
        ]

    def caps(self) -> dict[str, float]:
        """What must be smaller than a network that the device could not run, or that missed an unplanned limit."""
        found: dict[str, float] = {}
        metrics = self.metrics()
        for trial in (self.baseline, *self.trials):
            for figure in self._lacking(trial):
                stand_in = _stand_in(figure, metrics)
                if stand_in is not None:
                    needed = _SHRINK * metrics[stand_in].predict(trial.candidate)
                    found[stand_in] = min(found.get(stand_in, needed), needed)
        return found

    def loss_rate(self) -> float | None:
        """What a predicted loss of 1 turned out to cost in accuracy after the whole fine-tuning; None where unknown."""
        pairs = []
        for trial in self.trials:
            loss = predicted_loss(self.space, Choice.of(trial.candidate, self.space))
            figure, dense = trial.figures.get("accuracy"), self.dense.get("accuracy")
            known = figure is not None and dense is not None and figure.value is not None and dense.value is not None
            if trial.stage is Stage.FINAL and loss > 0 and known:
                pairs.append((dense.value - figure.value) / loss)  # type: ignore[union-attr, operator]
        return statistics.median(pairs) if pairs else None

    def allowed_drop(self) -> float | None:
        """By how much accuracy may fall below the dense model's; None where no limit says."""
        dense = self.dense.get("accuracy")
        bounds = [
            bound
            for limit in self.budget.limits
            if limit.is_accuracy and (bound := limit.bound(self.dense)) is not None
        ]
        return dense.value - max(bounds) if bounds and dense is not None and dense.value is not None else None

    def _bounds(self) -> dict[str, float]:
        found = {limit.figure: limit.bound(self.dense) for limit in self.budget.limits if not limit.is_accuracy}
        return {figure: bound for figure, bound in found.items() if bound is not None}

    def _seen(self, figure: str) -> list[tuple[Candidate, float]]:
        found = []
        for trial in (self.baseline, *self.trials):
            measured = trial.figures.get(figure)
            if trial.stage.is_measured and measured is not None and measured.value and measured.kind == "measured":
                found.append((trial.candidate, measured.value))
        return found

    def _upper_ratio(self, figure: str) -> float:
        """Upper confidence bound over value, as it usually is on this device."""
        ratios = [
            figure_.upper / figure_.value
            for trial in (self.baseline, *self.trials)
            if (figure_ := trial.figures.get(figure)) is not None and figure_.value and figure_.upper is not None
        ]
        return max(statistics.median(ratios), 1.0) if ratios else 1.0

    def _lacking(self, trial: Trial) -> tuple[str, ...]:
        """The figures, not predicted, for which the trial's network was too large."""
        if trial.outcome == Outcome.OOM.value:
            return ("peak_memory",)
        if ruled_out(trial) or not trial.stage.is_measured:
            return ()
        check = self.budget.check(trial.figures, self.dense)
        return tuple(
            entry.limit.figure
            for entry in check.limits
            if entry.limit.figure in self.unplanned and entry.value is not None and entry.state is not State.MET
        )


def _stand_in(figure: str, metrics: Mapping[str, MetricModel]) -> str | None:
    """The figure that is predicted and says most of one that is not."""
    for name in _STANDS_FOR.get(figure.partition(".")[0], ()):
        for known in metrics:
            if known.partition(".")[0] == name:
                return known
    return next(iter(metrics), None)
