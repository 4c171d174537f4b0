"""How far a trial is from a budget's limits, as search strategies and the loop need it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from edgeprune.records.budget import Budget, BudgetCheck, LimitCheck, State
from edgeprune.records.figures import Figures
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import Stage, Trial

__all__ = [
    "accuracy_state",
    "check_trial",
    "closest",
    "device_state",
    "pressure",
    "reachable",
    "ruled_out",
    "unreadable",
    "worst",
]

# A crash is a trial's outcome only where it came again; see the loop.
_RULED_OUT = {Outcome.OOM.value: "out of memory", Outcome.CRASHED.value: "it crashed the runtime, twice"}


def check_trial(budget: Budget, trial: Trial, dense: Figures) -> BudgetCheck:
    """The budget against the trial's figures; what is ruled out violates every limit that it has no figure for."""
    check = budget.check(trial.figures, dense)
    reason = ruled_out(trial)
    if not reason:
        return check
    limits = tuple(
        entry
        if entry.limit.is_accuracy or entry.state is State.VIOLATED or entry.value is not None
        else LimitCheck(entry.limit, State.VIOLATED, entry.bound, None, None, None, reason)
        for entry in check.limits
    )
    return BudgetCheck(limits)


def ruled_out(trial: Trial) -> str:
    """Why the device cannot run the trial's network at all; empty where it can."""
    what = _RULED_OUT.get(trial.outcome)
    return "" if what is None else f"{what}: {trial.message}"


def device_state(budget: Budget, trial: Trial, dense: Figures) -> State:
    """The limits that the device measures, together. What is ruled out is VIOLATED, whatever the limits are."""
    if ruled_out(trial):
        return State.VIOLATED
    return budget.check(trial.figures, dense).only(accuracy=False).state


def accuracy_state(budget: Budget, trial: Trial, dense: Figures) -> State:
    """The limits on accuracy, together."""
    return budget.check(trial.figures, dense).only(accuracy=True).state


def pressure(budget: Budget, trial: Trial, dense: Figures) -> dict[str, float]:
    """Per figure with a limit that the device measures: upper bound (or value) over the limit; above 1 is too much."""
    ratios: dict[str, float] = {}
    for entry in budget.check(trial.figures, dense).only(accuracy=False).limits:
        worst = entry.value if entry.upper is None else entry.upper
        if worst is not None and entry.bound:
            ratios[entry.limit.figure] = worst / entry.bound
    return ratios


def worst(budget: Budget, trial: Trial, dense: Figures) -> float:
    """The highest of its `pressure`; infinite where the trial came to no figures."""
    return max(pressure(budget, trial, dense).values(), default=math.inf)


def unreadable(check: BudgetCheck) -> tuple[LimitCheck, ...]:
    """The limits that no candidate can be shown to meet: their figure, or the dense one they refer to, is missing."""
    return tuple(entry for entry in check.limits if entry.value is None or entry.bound is None)


def closest(budget: Budget, trials: Iterable[Trial], dense: Figures) -> Trial | None:
    """The trial that comes nearest to the budget: a FINAL one where there is one, else a measured one.

    Nearest is the least worst excess over a limit (device limits as a share, accuracy as a difference).
    """

    def distance(trial: Trial) -> tuple[bool, bool, float, int]:
        check = check_trial(budget, trial, dense)
        # Accuracy before fine-tuning says little of what a candidate can reach.
        entries = check.limits if trial.stage is Stage.FINAL else check.only(accuracy=False).limits
        blind = any(entry.headroom is None for entry in entries)
        excess = max((-entry.headroom for entry in entries if entry.headroom is not None), default=0.0)
        return trial.stage is not Stage.FINAL, blind, max(excess, 0.0), trial.number

    measured = [trial for trial in trials if trial.stage.is_measured]
    return min(measured, key=distance, default=None)


def reachable(
    budget: Budget, check: BudgetCheck, trials: Iterable[Trial], dense: Figures
) -> dict[str, tuple[float, int]]:
    """Per figure of a limit that `check` does not show as met: the smallest value of a measured trial, and its number.

    For accuracy it is the highest among the trials within the device's limits, fine-tuned ones where there are any;
    where none is within them, accuracy is left out: the dense model's own would mean nothing.
    """
    measured = [trial for trial in trials if trial.stage.is_measured]
    within = [trial for trial in measured if device_state(budget, trial, dense) is State.MET]
    tuned = [trial for trial in within if trial.stage is Stage.FINAL]
    best: dict[str, tuple[float, int]] = {}
    for entry in check.limits:
        name, accuracy = entry.limit.figure, entry.limit.is_accuracy
        pool = (tuned or within) if accuracy else measured
        values = [(f.value, t.number) for t in pool if (f := t.figures.get(name)) and f.value is not None]
        if values and entry.state is not State.MET:
            sign = -1 if accuracy else 1
            best[name] = min(values, key=lambda pair, sign=sign: (sign * pair[0], pair[1]))  # type: ignore[misc]
    return best
