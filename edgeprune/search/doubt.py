"""When a measurement is not believed at once: it contradicts what is known of its network, or concludes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figures, format_figure
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import CONTRADICTED, INCONCLUSIVE, Stage, Trial
from edgeprune.search.limits import ruled_out

__all__ = ["Range", "as_before", "contradiction", "doubt", "inconclusive"]

Range = tuple[float, float]  # lowest and highest value of a figure, in its unit

_SAME = 1.04  # two measurements of the same network that are farther apart contradict each other, unless ...
_INTERVALS = 2  # ... they are within so many of their intervals (value to upper bound)


def doubt(
    trial: Trial, earlier: Sequence[Trial], expected: Mapping[str, Range], budget: Budget
) -> tuple[str, str] | None:
    """Why the device should be asked again, and what kind of doubt it is; None where the trial can be believed.

    A figure with a limit contradicts what is known of it where it is neither in the range that was `expected` nor as
    an earlier measurement of the same network had it; what ran before contradicts a failure. What concludes nothing is
    doubted once: each of the two measurements is held against a bound that one in forty exceeds by chance, so that the
    two together accept wrongly in at most one of twenty. `earlier` are all trials before, the first of them the dense
    model's, and former measurements of this one.
    """
    if not earlier:
        return None
    same = [t for t in earlier if t.candidate.id == trial.candidate.id and t.stage.is_measured]
    if reason := ruled_out(trial):
        ran = any(_measured(t) for t in same) and not any(map(ruled_out, same))
        return (CONTRADICTED, f"{reason}; but it ran before") if ran else None
    limited = {limit.figure for limit in budget.limits}
    known = as_before(trial.candidate, same)
    for name, range_ in expected.items():
        known[name] = [range_, *known.get(name, [])]
    why = contradiction(trial, {name: ranges for name, ranges in known.items() if name in limited})
    if why is not None:
        return CONTRADICTED, why
    dense = earlier[0].figures
    why = inconclusive(trial, budget, dense)
    if why is None or any(t.number == trial.number and inconclusive(t, budget, dense) for t in same):
        return None
    return INCONCLUSIVE, why


def as_before(candidate: Candidate, trials: Iterable[Trial]) -> dict[str, list[Range]]:
    """Between what each figure of the network should come out now, by each of the trials that measured it."""
    found: dict[str, list[Range]] = {}
    for trial in trials:
        if trial.candidate.id == candidate.id and not candidate.is_dense:
            for name, value in _measured(trial).items():
                if value > 0:  # of nothing there is no share to be off by
                    upper = trial.figures[name].upper or value
                    apart = max(_SAME, 1 + _INTERVALS * (upper / value - 1))
                    found.setdefault(name, []).append((value / apart, value * apart))
    return found


def contradiction(trial: Trial, expected: Mapping[str, Sequence[Range]]) -> str | None:
    """The first figure of the trial that is in none of its ranges; None where all are in one, or have none."""
    for name, value in _measured(trial).items():
        ranges = expected.get(name, ())
        if ranges and not any(low <= value <= high for low, high in ranges):
            low, high = ranges[0]
            known = f"{format_figure(name, low)} to {format_figure(name, high)}"
            nearest = low if value < low else high
            off = abs(value - nearest) / max(value, nearest)
            found = f"{name} {format_figure(name, value)}"
            return f"{found} contradicts by {off:.1%} what is known of this network, {known}"
    return None


def inconclusive(trial: Trial, budget: Budget, dense: Figures) -> str | None:
    """The limit that the trial's figure is within, but not its upper confidence bound; None where another is violated.

    None, too, where a figure has no value or no bound: measuring again would not tell more.
    """
    if not trial.stage.is_measured or trial.outcome != Outcome.OK.value:
        return None
    check = budget.check(trial.figures, dense)
    limits = check.limits if trial.stage is Stage.FINAL else check.only(accuracy=False).limits
    unsure = [entry for entry in limits if entry.state is not State.MET]
    for entry in unsure:
        if entry.state is State.VIOLATED or None in (entry.value, entry.upper, entry.bound):
            return None
    for entry in unsure:
        name, value, upper, bound = entry.limit.figure, entry.value or 0.0, entry.upper or 0.0, entry.bound or 0.0
        said = f"{name} {format_figure(name, value)} is within the limit of {format_figure(name, bound)}"
        return f"{said}, but its upper confidence bound exceeds it by {upper / bound - 1:.1%}"
    return None


def _measured(trial: Trial) -> dict[str, float]:
    """What the device said of the trial's network."""
    if not trial.stage.is_measured or trial.outcome != Outcome.OK.value:
        return {}
    return {
        name: figure.value
        for name, figure in trial.figures.items()
        if name != "accuracy" and figure.kind == "measured" and figure.value is not None
    }
