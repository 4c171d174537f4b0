"""When a measurement is not believed at once: it contradicts an earlier one of its network, or what is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import format_figure
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import Trial

__all__ = ["Range", "as_before", "contradiction"]

Range = tuple[float, float]  # lowest and highest value of a figure, in its unit

_SAME = 1.04  # two measurements of the same network that are farther apart contradict each other, unless ...
_INTERVALS = 2  # ... they are within so many of their intervals (value to upper bound)


def as_before(candidate: Candidate, trials: Iterable[Trial]) -> dict[str, Range]:
    """Between what each figure of the network should come out now, as far as one of the trials measured it."""
    found = {}
    for trial in trials:
        if trial.candidate.id == candidate.id and not candidate.is_dense:
            for name, value in _measured(trial).items():
                if value > 0:  # of nothing there is no share to be off by
                    upper = trial.figures[name].upper or value
                    apart = max(_SAME, 1 + _INTERVALS * (upper / value - 1))
                    found[name] = (value / apart, value * apart)
    return found


def contradiction(trial: Trial, expected: Mapping[str, Range]) -> str | None:
    """What of the trial is not as it should be; None where all is."""
    for name, value in _measured(trial).items():
        low, high = expected.get(name, (value, value))
        if not low <= value <= high:
            known = f"{format_figure(name, low)} to {format_figure(name, high)}"
            nearest = low if value < low else high
            off = abs(value - nearest) / max(value, nearest)
            found = f"{name} {format_figure(name, value)}"
            return f"{found} contradicts by {off:.1%} what is known of this network, {known}"
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
