"""A strategy that wants no single answer but the front: one network for each of several sizes.

Each aim is a limit on one figure; the network of least predicted loss within it is solved for on the cost model, which
every measurement so far has corrected. An aim that nothing is predicted to reach gets the smallest network there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.records.candidate import Candidate
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Proposal, SearchSpace
from edgeprune.search.calibration import calibrated
from edgeprune.search.costs import MetricModel
from edgeprune.search.problem import Problem, Solution
from edgeprune.search.script import Script, ScriptedStrategy
from edgeprune.search.solve import solve

__all__ = ["Aim", "Aimed", "Front"]


@dataclass(frozen=True, slots=True)
class Aim:
    """One point of the front: `limit` on a figure; or, with `figure` None, the share `limit` of every width kept."""

    text: str  # as it was asked for: "70%", "12ms"
    limit: float
    figure: str | None = None


@dataclass(frozen=True, slots=True)
class Aimed:
    """What came of an aim. `predicted` are figures as the model had them before `trial` (a number) was measured.

    `reachable` is False where nothing is predicted to be within the limit: then the trial is the smallest network.
    """

    aim: Aim
    candidate: Candidate
    predicted: dict[str, float]
    reachable: bool
    trial: int


class Front(ScriptedStrategy):
    """One proposal per aim, in the order of the aims; none twice for the same network."""

    def __init__(self, space: SearchSpace, baseline: Trial, aims: Sequence[Aim], stage: Stage) -> None:
        super().__init__()
        self._space = space
        self._aims = tuple(aims)
        self._stage = stage
        self._trials = [baseline]
        self.aimed: list[Aimed] = []

    def script(self) -> Script:
        """The networks, one after the other: each measurement makes the next plan better."""
        known = {Candidate().id: 0}
        for aim in self._aims:
            metrics = self._metrics(aim)
            candidate, reachable = self._candidate(aim, metrics)
            predicted = {figure: metric.predict(candidate) for figure, metric in metrics.items()}
            if candidate.id not in known:
                (trial,) = yield [Proposal(candidate, self._stage, f"the front at {aim.text}")]
                self._trials.append(trial)
                known[candidate.id] = trial.number
            self.aimed.append(Aimed(aim, candidate, predicted, reachable, known[candidate.id]))

    def _candidate(self, aim: Aim, metrics: dict[str, MetricModel]) -> tuple[Candidate, bool]:
        """The network for an aim, and whether it is predicted to be within the limit."""
        if aim.figure is None:
            return self._space.candidate(self._space.uniform(aim.limit)), True
        found = solve(Problem(self._space, metrics, {aim.figure: aim.limit}))
        reachable = isinstance(found, Solution)
        if not isinstance(found, Solution):
            found = solve(Problem(self._space, metrics, minimise=aim.figure))
        if not isinstance(found, Solution):  # the solver gave up
            return self._space.candidate({group.name: group.widths[0] for group in self._space.groups}), False
        return self._space.candidate(found.choice.widths, found.choice.dropped), reachable

    def _metrics(self, aim: Aim) -> dict[str, MetricModel]:
        """The cost models, corrected by all measurements, most by those near the aim."""
        if self._space.costs is None:
            return {}
        found = {}
        for figure, metric in self._space.costs.metrics.items():
            seen = [
                (trial.candidate, value.value)
                for trial in self._trials
                if (value := trial.figures.get(figure)) is not None and value.value is not None
            ]
            near = aim.limit if figure == aim.figure else seen[-1][1] if seen else 0.0
            found[figure] = calibrated(metric, seen, near)
        return found
