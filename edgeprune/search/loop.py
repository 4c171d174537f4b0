"""The search loop: ask a strategy, evaluate, journal, tell; accept only what a final measurement proves.

    baseline (trial 0, dense, measured) -> ask -> evaluate -> journal -> tell -> ... -> result

A resumed run replays the journal through the strategy, which is deterministic: no trial is lost or repeated, and
the trial that was running when the run was killed is done again under its number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from edgeprune.errors import CannotMeasureError, DamagedError, EdgepruneError, StorageError
from edgeprune.progress import SILENT, Progress
from edgeprune.records.budget import Budget, LimitCheck, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.explanation import Explanation
from edgeprune.records.measurement import Outcome
from edgeprune.records.result import Result, Status
from edgeprune.records.trial import MEASURED_AGAIN, Job, Stage, Trial
from edgeprune.search.base import Evaluate, Explains, Proposal, Strategy
from edgeprune.search.doubt import doubt
from edgeprune.search.journal import Journal
from edgeprune.search.limits import check_trial, closest, reachable, ruled_out, unreadable, worst
from edgeprune.search.words import blind_message, bound_by, first_upper, infeasible_message, trial_line, with_hint

__all__ = ["Ahead", "MakeStrategy", "SearchLimits", "Settled", "search"]

MakeStrategy = Callable[[Trial], Strategy]  # given the baseline's trial
Ahead = Callable[[Sequence[Job]], None]
Settled = Callable[[int], None]

# Trying again does not help where something is missing on the device.
_HOPELESS = (Outcome.NO_RUNTIME, Outcome.NO_CORES, Outcome.NO_SPACE)


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """What a search may spend. `max_trials` counts what goes to the device (MEASURE and FINAL), and the baseline.

    A measurement that fails (THROTTLED, LOST ...) is tried again after each of the pauses `retry_after_s`. One that is
    done again because it is doubted is not counted.
    """

    max_trials: int = 40
    retry_after_s: tuple[float, ...] = (2.0, 10.0)


_MOST_TRIED = 3  # measurements of a trial
_CRASHES = 2  # of the same network in a row: then it is the network that the runtime cannot stand


class _Unmeasurable(Exception):  # noqa: N818  not an error: how the loop is left
    """A trial could not be measured, however often it was tried."""


@dataclass(slots=True)
class _Search:
    """The state of one call of `search`: the journal, and how far its replay has come."""

    budget: Budget
    evaluate: Evaluate
    journal: Journal
    limits: SearchLimits
    progress: Progress
    sleep: Callable[[float], None]
    ahead: Ahead
    settled: Settled
    trials: list[Trial] = field(default_factory=list)

    def trial(
        self, candidate: Candidate, stage: Stage, expected: Mapping[str, tuple[float, float]] = MappingProxyType({})
    ) -> Trial:
        """The next trial: from the journal where it is there, else evaluated and journaled."""
        number = len(self.trials)
        if number < len(self.journal.trials):
            trial = self.journal.trials[number]
            if trial.candidate.id != candidate.id or trial.stage is not stage:
                raise DamagedError(
                    f"{self.journal.path}: trial {number} is {trial.stage.value} {trial.candidate.id}, "
                    f"where this search comes to {stage.value} {candidate.id}",
                    hint="the model, its data or the strategy changed since: start a new run in another folder",
                )
        else:
            trial = self._believed(candidate, stage, number, expected)
            self.journal.add(trial)
            self.progress.say(trial_line(trial))
        self.settled(number)
        self.trials.append(trial)
        return trial

    def prepare(self, batch: Sequence[Proposal]) -> None:
        """Say what comes next, of what the journal does not hold."""
        first, known = len(self.trials), len(self.journal.trials)
        jobs = [Job(number, p.stage, p.candidate) for number, p in enumerate(batch, first) if number >= known]
        if jobs:
            self.ahead(jobs)

    def _believed(
        self, candidate: Candidate, stage: Stage, number: int, expected: Mapping[str, tuple[float, float]]
    ) -> Trial:
        """The trial, of which the device is asked again where there is reason to doubt it, and a third time where the
        second is not better; see `doubt`. The last time decides, or the worst where all contradict each other.
        """
        tried = [self._measured(candidate, stage, number)]
        doubts: list[str] = []
        while (found := doubt(tried[-1], [*self.trials, *tried[:-1]], expected, self.budget)) is not None:
            outcome, why = found
            self.journal.add_attempt(number, outcome, why)
            if len(tried) == _MOST_TRIED:
                doubts[-1] += f"; {why}: the worst of {_MOST_TRIED} counts"
                tried.sort(key=lambda each: worst(self.budget, each, self.trials[0].figures))
                break
            doubts.append(why)
            self.progress.say(f"trial {number}: {why}; measuring it again")
            tried.append(self._measured(candidate, stage, number))
        if not doubts:
            return tried[-1]
        details = {name: value for each in tried for name, value in each.details.items()}
        return replace(tried[-1], details={**details, MEASURED_AGAIN: doubts})

    def _measured(self, candidate: Candidate, stage: Stage, number: int) -> Trial:
        crashes = 0
        for pause in (*self.limits.retry_after_s, None):
            try:
                trial = self.evaluate(candidate, stage, number)
            except StorageError:
                raise
            except CannotMeasureError as error:
                outcome, message = error.outcome or Outcome.LOST.value, with_hint(error)
            except EdgepruneError as error:  # a wrong surgery, export or task: no retry helps, but the run says where
                self.journal.add_attempt(number, type(error).__name__, error.message)
                raise
            else:
                crashes = crashes + 1 if trial.outcome == Outcome.CRASHED.value else 0
                if Outcome(trial.outcome).is_result or (crashes == _CRASHES and not candidate.is_dense):
                    return trial
                outcome, message = trial.outcome, trial.message
            self.journal.add_attempt(number, outcome, message)
            if pause is None or outcome in [o.value for o in _HOPELESS]:
                break
            self.progress.say(f"trial {number}: {outcome}: {message}; trying again in {pause:g} s")
            self.sleep(pause)
        raise _Unmeasurable(f"trial {number} could not be measured: {outcome}: {message}")


def search(
    make_strategy: MakeStrategy,
    evaluate: Evaluate,
    journal: Journal,
    budget: Budget,
    *,
    limits: SearchLimits = SearchLimits(),
    strategy: str = "",
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    sleep: Callable[[float], None] = time.sleep,
    ahead: Ahead = lambda _: None,
    settled: Settled = lambda _: None,
) -> Result:
    """Search for the most accurate candidate that measurements prove to be within the budget.

    `evaluate` does a trial; an outcome that is no result (see Outcome) is tried again a few times, after which the
    search ends "unmeasurable" and can be resumed. A pruned network that crashes the runtime twice in a row is ruled
    out, as one that is out of memory. Ends "infeasible" where the strategy or `max_trials` is
    exhausted. Raises CannotMeasureError where not even the dense model can be measured, and StorageError, ParityError,
    VerificationError and TaskError as `evaluate` does; KeyboardInterrupt passes through. The journal holds all
    finished trials in each case. `ahead` is told of a batch of proposals before the first of them is evaluated: they
    are independent, so what they need may be prepared in any order. `settled` is told of each trial, by its number,
    once the journal holds it: until then it may be asked for again, also by another process.
    """
    run = _Search(budget, evaluate, journal, limits, progress, sleep, ahead, settled)
    try:
        dense = run.trial(Candidate(), Stage.MEASURE)
    except _Unmeasurable as error:
        raise CannotMeasureError(
            f"the dense model: {error}", hint="once the cause is gone, go on with --resume"
        ) from error

    def finished(status: Status, best: Trial | None, message: str, explanation: Explanation | None = None) -> Result:
        check = None if best is None else check_trial(budget, best, dense.figures)
        missed = {} if status == "accepted" or check is None else reachable(budget, check, run.trials, dense.figures)
        return Result(
            status=status,
            budget=budget,
            dense=dense,
            best=best,
            check=check,
            trials=len(run.trials),
            reachable=missed,
            ruled_out=tuple((trial.number, reason) for trial in run.trials if (reason := ruled_out(trial))),
            seed=seed,
            strategy=strategy,
            seconds=sum(trial.seconds for trial in run.trials),
            provenance=dict(provenance or {}),
            message=message,
            explanation=explanation,
        )

    blind = _blind_limits(budget, dense)
    if blind:
        return finished("unmeasurable", dense, blind_message(blind, dense))
    planner = make_strategy(dense)
    try:
        capped = _drive(run, planner, limits.max_trials)
    except _Unmeasurable as error:
        best = closest(budget, run.trials, dense.figures)
        return finished("unmeasurable", best, f"{error}; once the cause is gone, go on with --resume")
    explanation = planner.explain() if isinstance(planner, Explains) else None
    accepted = _accepted(budget, run.trials, dense)
    if accepted is not None:
        message = f"trial {accepted.number} meets every limit by measurement{bound_by(explanation)}"
        return finished("accepted", accepted, message, explanation)
    best = closest(budget, run.trials, dense.figures)
    result = finished("infeasible", best, "")
    message = infeasible_message(result.check, result.reachable)
    if explanation is not None and explanation.infeasibility is not None:
        message += f" {first_upper(str(explanation.infeasibility))}."
    if capped:
        message += f" The search stopped at max_trials = {limits.max_trials}; a higher one may find more."
    return finished("infeasible", best, message, explanation)


def _drive(run: _Search, strategy: Strategy, max_trials: int) -> bool:
    """Ask and tell until the strategy is done (False) or the trials are used up (True)."""
    left = max_trials - 1
    while proposals := strategy.ask():
        batch = list(_affordable(proposals, left))
        run.prepare(batch)
        for proposal in batch:
            strategy.tell(run.trial(proposal.candidate, proposal.stage, proposal.expected))
        if len(batch) < len(proposals):
            return True
        left -= sum(proposal.stage.is_measured for proposal in batch)
    return False


def _affordable(proposals: Sequence[Proposal], left: int) -> Iterator[Proposal]:
    """The first of them, until one is to go to the device after `left` others did."""
    for proposal in proposals:
        if proposal.stage.is_measured:
            if left <= 0:
                return
            left -= 1
        yield proposal


def _accepted(budget: Budget, trials: list[Trial], dense: Trial) -> Trial | None:
    """The most accurate FINAL trial that meets every limit; the first of equals."""
    met = [
        trial
        for trial in trials
        if trial.stage is Stage.FINAL
        and trial.outcome == Outcome.OK.value
        and budget.check(trial.figures, dense.figures).state is State.MET
    ]
    return max(met, key=lambda trial: (_accuracy(trial), -trial.number), default=None)


def _accuracy(trial: Trial) -> float:
    figure = trial.figures.get("accuracy")
    return figure.value if figure is not None and figure.value is not None else float("-inf")


def _blind_limits(budget: Budget, dense: Trial) -> tuple[LimitCheck, ...]:
    """Limits whose figure cannot be had at all; of a dense model that does not fit, only those relative to it."""
    missing = unreadable(budget.check(dense.figures, dense.figures))
    if dense.outcome == Outcome.OOM.value:
        return tuple(entry for entry in missing if entry.bound is None)
    return missing
