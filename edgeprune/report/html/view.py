"""What a report is made of: a result, its trials, and what the run's folder holds besides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeprune.records.figures import Figure, Figures, format_figure
from edgeprune.records.measurement import Measurement
from edgeprune.records.result import Result
from edgeprune.records.structure import Structure
from edgeprune.records.trial import Trial

__all__ = [
    "InTurn",
    "View",
    "between",
    "in_turn",
    "interval",
    "label",
    "latency_figure",
    "signed",
    "title",
    "unbroken",
    "value_of",
]

_NUMBER_AND_UNIT = re.compile(r"(\d) (%|(?:pp|[num]?s|[kMG]?B|[um]?J)\b)")
_LABELS = {"peak_memory": "peak memory", "macs": "multiply-accumulates", "params": "parameters"}


@dataclass(frozen=True, slots=True)
class InTurn:
    """What runs in turn with the dense network say of a trial on one device: its share of the median, with bounds."""

    target: str
    ratio: float
    lower: float
    upper: float
    alone_ms: float | None


@dataclass(frozen=True, slots=True)
class View:
    """`measurements` are by trial number: of the dense trial and of the best one, where they can be read.

    `notes` says what of the folder is missing or could not be read. `artifact_sha256` is that of the accepted file.
    """

    name: str
    result: Result
    trials: tuple[Trial, ...]
    measurements: Mapping[int, Measurement] = field(default_factory=dict)
    structure: Structure | None = None
    artifact_sha256: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Trial | None:
        """The accepted or closest trial; None where that is the dense model itself."""
        best = self.result.best
        return None if best is None or best.number == self.result.dense.number else best

    @property
    def compared(self) -> tuple[Trial, ...]:
        """The dense trial and, where there is one, the best."""
        return (self.result.dense, self.best) if self.best is not None else (self.result.dense,)

    @property
    def accepted(self) -> bool:
        return self.result.status == "accepted"


def title(view: View, trial: Trial) -> str:
    """What a trial is called beside others: "dense", "accepted", "closest"."""
    if trial.number == view.result.dense.number:
        return "dense"
    if view.best is not None and trial.number == view.best.number:
        return "accepted" if view.accepted else "closest"
    return f"trial {trial.number}"


def label(name: str) -> str:
    """A figure's name for readers: "latency p50", "peak memory"."""
    return _LABELS.get(name, name.replace("latency.", "latency ").replace("_", " "))


def in_turn(trial: Trial) -> tuple[InTurn, ...]:
    """The runs in turn that a trial's details tell of, by device."""
    told = trial.details.get("in_turn")
    found = told.items() if isinstance(told, Mapping) else ()
    return tuple(
        InTurn(str(target), entry["ratio"], entry["lower"], entry["upper"], entry.get("alone_ms"))
        for target, entry in found
        if isinstance(entry, Mapping) and all(entry.get(name) is not None for name in ("ratio", "lower", "upper"))
    )


def signed(value: float, digits: int) -> str:
    """With its sign, which is a minus and no hyphen."""
    return f"{value:+.{digits}f}".replace("-", "−")


def unbroken(text: str) -> str:
    """The text, its numbers held together with their units."""
    return _NUMBER_AND_UNIT.sub("\\1\u00a0\\2", text)


def value_of(figures: Figures, name: str) -> float | None:
    """The figure's value where it was measured."""
    figure = figures.get(name)
    return figure.value if figure is not None and figure.kind == "measured" else None


def latency_figure(result: Result) -> str:
    """The latency that the budget limits; the median where it limits none."""
    return next((limit.figure for limit in result.budget.limits if limit.figure.startswith("latency.")), "latency.p50")


def interval(name: str, figure: Figure, measurement: Measurement | None, like: float | None = None) -> str:
    """ "0.465 ms to 0.481 ms", "up to 35.8 MB", or "" where there is no interval; what `figure` was judged by."""
    if figure.value is None or figure.upper is None:
        return ""
    upper = format_figure(name, figure.upper, like)
    lower, highest = _bounds(name, measurement)
    if lower is not None and highest == figure.upper:
        return between(format_figure(name, lower, like), upper)
    return f"up to {upper}" if figure.upper > figure.value else ""


def between(lower: str, upper: str) -> str:
    """An interval, its unit told once where both have the same."""
    number, _, unit = lower.partition(" ")
    return f"{number if unit == upper.partition(' ')[2] else lower} to {upper}"


def _bounds(name: str, measurement: Measurement | None) -> tuple[float | None, float | None]:
    """Of the measurement alone: a figure that was judged otherwise (in turn, over a pool) has other ones."""
    if measurement is not None and name.startswith("latency.") and measurement.latency is not None:
        statistic = name.removeprefix("latency.")
        return measurement.latency.lower_ms.get(statistic), measurement.latency.upper_ms.get(statistic)
    if measurement is not None and name == "energy" and measurement.energy is not None:
        return measurement.energy.net_lower_mj, measurement.energy.net_upper_mj
    return None, None
