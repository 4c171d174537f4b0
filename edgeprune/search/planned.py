"""The search that plans with a cost model: solve, measure, recalibrate, solve again; rank by fine-tuning; finish one.

    rounds   solve at limits that tighten geometrically from half-way to the dense model down to the budget, measure the
             optimum (and the best uniform network), recalibrate; until the optimum is known to be within the limits,
             even where the models may say too much: what they do not know, such as a knee, a measurement finds
    ranking  a few diverse near-optima within the limits are fine-tuned shortly
    finish   the best is fine-tuned wholly and measured; a miss tightens the limits, and one more round follows
    or       the certificate: how near one can get, predicted and built

How a problem is solved is for subclasses.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping

from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.explanation import Explanation, Infeasibility
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Proposal, SearchSpace
from edgeprune.search.certificate import binding, certify
from edgeprune.search.costs import MetricModel
from edgeprune.search.knowledge import Knowledge
from edgeprune.search.problem import RELAXATION, Choice, Infeasible, Problem, Solution, predicted_loss
from edgeprune.search.script import Batch, Script, ScriptedStrategy

__all__ = ["Planned"]

# Per round: how far of the way back to the dense model, and how much of the safety margin is kept. Less than none
# means that predictions may exceed the limits by it.
_ROUNDS = ((0.25, 1.0), (0.06, 1.0), *((0.0, 1.0),) * 4, *((0.0, 0.0),) * 3, *((0.0, -1.0),) * 4)
_REPAIR = ((0.0, 1.0),) * 2  # after a final measurement that missed the limits
_MOST_MEASURED = 15
_FINALS = 4
_RESERVED = 4  # measurements that the rounds leave to the ranking and the finish
_FINAL = 1  # that a repair leaves
_HOPING = 3  # and so many more where predictions may exceed the limits: it may take several finals to meet them
_DIVERSE = 2  # how many more near-optima are measured before the ranking
_TUNED = 4
_APART = 8  # a diverse solution differs in one of so many groups

_Measuring = Generator[Batch, tuple[Trial, ...], Trial]


class Planned(ScriptedStrategy):
    """The search over the space on `models`, one per figure that is predicted.

    `plans` tells who makes a strategy that the space is to have losses and, where it can be had, a cost model.
    """

    plans = True

    def __init__(self, space: SearchSpace, budget: Budget, baseline: Trial, models: Mapping[str, MetricModel]) -> None:
        super().__init__()
        self._space = space
        self._budget = budget
        self._baseline = baseline
        self._known = Knowledge(space, budget, baseline, models)
        self._tried: dict[tuple[str, Stage], Trial] = {}
        self._infeasibility: Infeasibility | None = None
        self._binding: tuple[str, ...] = ()

    def solve(self, problem: Problem) -> Solution | Infeasible:
        """The best choice of a problem that can be found; deterministic."""
        raise NotImplementedError

    def explain(self) -> Explanation:
        """What bound the search, and why it ended; complete once `ask` has nothing more."""
        return Explanation(self._binding, self._known.unplanned, self._infeasibility)

    def script(self) -> Script:
        """Rounds, ranking, finish; the certificate where nothing is accepted."""
        if self._known.state(self._baseline) is State.MET:
            yield [Proposal(Candidate(), Stage.FINAL, "the dense model is within the limits")]
            return
        if not self._space.groups and not self._space.blocks:
            return
        for attempt in range(_FINALS):
            yield from self._rounds(_ROUNDS, _RESERVED) if attempt == 0 else self._rounds(_REPAIR, _FINAL)
            final = yield from self._finish()
            if final is None:
                break
            if self._known.state(final) is State.MET:
                if self._known.accurate(final):
                    self._binding = binding(self._known, self.solve)
                    return
                break
        before = len(self._known.met())
        self._infeasibility = yield from certify(self._known, self.solve, self._build)
        if len(self._known.met()) > before and not self._finished():  # built to show how near one gets, and it is there
            final = yield from self._finish()
            if final is not None and self._known.state(final) is State.MET and self._known.accurate(final):
                self._infeasibility, self._binding = None, binding(self._known, self.solve)

    def _rounds(
        self, rounds: tuple[tuple[float, float], ...], reserved: int
    ) -> Generator[Batch, tuple[Trial, ...], None]:
        """Measure the optimum, until it is known to be within the limits, or none is; some measurements are left."""
        uniform = False
        settled = math.inf  # the margin at which the optimum is known already
        for slack, margin in rounds:
            most = _MOST_MEASURED - reserved - (_HOPING if margin < 0 else 0)
            if self._known.measured >= most:
                return
            if margin == settled:
                continue
            if slack == 0 and not uniform:
                uniform = True
                yield from self._measure_uniform()
            while (again := self._known.doubtful()) is not None and self._known.measured < most:
                yield from self._build(again, "once more: it was an outlier, it seems", again=True)
            choice = self._plan(slack, margin)
            if choice is None:
                return
            candidate = self._candidate(choice)
            if (candidate.id, Stage.MEASURE) not in self._tried and not candidate.is_dense:
                yield from self._build(candidate, f"least predicted loss, {slack:.0%} of the way to dense")
            elif slack == 0:
                settled = margin

    def _plan(self, slack: float, margin: float) -> Choice | None:
        """The optimum; where there is none, what comes nearest to the limits."""
        known = self._known
        found = self.solve(
            Problem(
                self._space,
                known.metrics(),
                known.aims(slack, margin),
                caps=known.caps(),
                excluded=known.missed(),
                too_large=known.too_large(),
            )
        )
        if isinstance(found, Infeasible):
            metrics, limits = known.metrics(), known.limits
            found = self.solve(
                Problem(self._space, metrics, limits, RELAXATION, known.caps(), too_large=known.too_large())
            )
        return found.choice if isinstance(found, Solution) else None

    def _finish(self) -> Generator[Batch, tuple[Trial, ...], Trial | None]:
        """Rank what is within the device's limits, and fine-tune the best wholly; None where nothing is within."""
        pool = self._unfinished()
        if not pool:
            return None
        if not self._finished():
            yield from self._measure_diverse(pool[0])
            pool = self._unfinished()
        best = pool[0]
        if len(pool) > 1:
            uniform = [trial for trial in pool[_TUNED - 1 :] if trial.candidate.id == self._uniform().id]
            chosen = [*pool[: _TUNED - len(uniform)], *uniform]
            fresh = [trial.candidate for trial in chosen if (trial.candidate.id, Stage.TUNE) not in self._tried]
            if fresh:
                tuned = yield [Proposal(candidate, Stage.TUNE, "rank by short fine-tuning") for candidate in fresh]
                for trial in tuned:
                    self._learn(trial)
            best = max(
                chosen, key=lambda trial: (_accuracy(self._tried[trial.candidate.id, Stage.TUNE]), -trial.number)
            )
        if self._known.measured >= _MOST_MEASURED:
            return None
        (final,) = yield [Proposal(best.candidate, Stage.FINAL, "the best of those within the limits")]
        self._learn(final)
        return final

    def _measure_diverse(self, best: Trial) -> Generator[Batch, tuple[Trial, ...], None]:
        """Measure a few more near-optima that differ from the best in many groups."""
        known = self._known
        apart = [Choice.of(best.candidate, self._space)]
        distance = max(2, len(self._space.groups) // _APART)
        for _ in range(min(_DIVERSE, len(self._space.groups) // 2)):
            if known.measured >= _MOST_MEASURED - 2:
                return
            found = self.solve(
                Problem(
                    self._space,
                    known.metrics(),
                    known.aims(),
                    caps=known.caps(),
                    excluded=tuple(apart),
                    distance=distance,
                    too_large=known.too_large(),
                )
            )
            if isinstance(found, Infeasible):
                return
            apart.append(found.choice)
            candidate = self._candidate(found.choice)
            if (candidate.id, Stage.MEASURE) not in self._tried:
                yield from self._build(candidate, "a near-optimum that is different")

    def _measure_uniform(self) -> Generator[Batch, tuple[Trial, ...], None]:
        """The best uniform network is always among the candidates."""
        candidate = self._uniform()
        if not candidate.is_dense and (candidate.id, Stage.MEASURE) not in self._tried:
            yield from self._build(candidate, "the widest uniform network that is predicted to be within the limits")

    def _uniform(self) -> Candidate:
        """The widest uniform network that is predicted within the limits; the narrowest where none is."""
        metrics, aims = self._known.metrics(), {**self._known.aims(), **self._known.caps()}
        candidate = Candidate()
        for percent in range(100, -1, -1):
            candidate = self._space.candidate(self._space.uniform(percent / 100))
            if all(metrics[figure].predict(candidate) <= aim for figure, aim in aims.items()):
                break
        return candidate

    def _unfinished(self) -> list[Trial]:
        """Trials within the device's limits without a final one, those of the least predicted loss first."""
        finished = self._finished()
        pool = [trial for trial in self._known.well_within() if trial.candidate.id not in finished]
        return sorted(
            pool, key=lambda trial: (predicted_loss(self._space, Choice.of(trial.candidate, self._space)), trial.number)
        )

    def _finished(self) -> set[str]:
        return {name for name, stage in self._tried if stage is Stage.FINAL}

    def _build(self, candidate: Candidate, why: str, again: bool = False) -> _Measuring:
        """Measure a candidate, once, or again: then that time decides."""
        if again or (candidate.id, Stage.MEASURE) not in self._tried:
            (trial,) = yield [Proposal(candidate, Stage.MEASURE, why, self._known.expected(candidate))]
            self._learn(trial)
        return self._tried[candidate.id, Stage.MEASURE]

    def _learn(self, trial: Trial) -> None:
        self._tried[trial.candidate.id, trial.stage] = trial
        self._known.add(trial)

    def _candidate(self, choice: Choice) -> Candidate:
        return self._space.candidate(choice.widths, choice.dropped)


def _accuracy(trial: Trial) -> float:
    figure = trial.figures.get("accuracy")
    return figure.value if figure is not None and figure.value is not None else 0.0
