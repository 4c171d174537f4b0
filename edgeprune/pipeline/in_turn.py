"""Latency relative to the dense model: both run in turn, so that the speed at which the device happens to run cancels.

A device is not equally fast all the time: frequency, temperature, neighbours. Where the budget says "50% of dense", a
candidate's figure is the ratio that was measured in turn, times the dense model's first figure; its bound likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from edgeprune.measure.pool import PoolMeasurement, judged
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import Budget
from edgeprune.records.comparison import Comparison
from edgeprune.records.figures import Figure, Figures, figures_of
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.trial import Stage

__all__ = ["FIGURE", "Compares", "by_target", "compared", "figures_in_turn", "is_relative"]

FIGURE = "latency.p50"  # what runs in turn tell: the ratio of medians
_EFFORT = {Stage.MEASURE: (4, 1.0), Stage.FINAL: (8, 1.5)}  # fresh processes, and seconds in each


class Compares(Protocol):
    """One device, or several."""

    def compare(
        self, artifact: Artifact, against: Artifact, *, workers: int, seconds: float
    ) -> Comparison | dict[str, Comparison]:
        """Run two artifacts in turn; on several devices by target."""


def is_relative(budget: Budget) -> bool:
    """Whether a limit on the median latency is relative to the dense model's."""
    return any(limit.figure == FIGURE and limit.relative for limit in budget.limits)


def compared(devices: Compares, artifact: Artifact, dense: Artifact, stage: Stage) -> dict[str, Comparison]:
    """The artifact in turn with the dense one, on every device; by target."""
    workers, seconds = _EFFORT[stage]
    found = devices.compare(artifact, dense, workers=workers, seconds=seconds)
    return found if isinstance(found, dict) else {_target(found): found}


def by_target(measured: Measurement | PoolMeasurement) -> dict[str, Measurement]:
    """What each device measured."""
    return dict(measured.parts) if isinstance(measured, PoolMeasurement) else {_target(measured): measured}


def figures_in_turn(
    measured: Measurement | PoolMeasurement,
    comparisons: Mapping[str, Comparison],
    dense: Mapping[str, Measurement],
    artifact: Artifact,
    accuracy: float | None,
) -> tuple[dict[str, Figure], dict[str, Any]]:
    """A trial's figures, with those of `comparisons` for the median latency; and, for its details, the ratios.

    Where both models do not fit into the device's memory together, the figure is that of the candidate by itself.
    """
    parts = by_target(measured)
    judge = measured.judge if isinstance(measured, PoolMeasurement) else "worst"
    found: dict[str, Figures] = {}
    told: dict[str, Any] = {}
    for target, part in parts.items():
        figures = figures_of(part, artifact, accuracy)
        comparison, first = comparisons.get(target), dense.get(target)
        median = None if first is None or first.latency is None else first.latency.percentile_ms.get("p50")
        if comparison is not None and comparison.outcome is Outcome.OK and median is not None:
            ratio, upper = comparison.ratio or 0.0, comparison.upper or 0.0
            alone = figures[FIGURE].value
            figures[FIGURE] = Figure(ratio * median, upper * median)
            told[target] = {"ratio": ratio, "lower": comparison.lower, "upper": upper, "alone_ms": alone}
        elif comparison is not None:
            told[target] = {"outcome": comparison.outcome.value, "message": comparison.message}
        found[target] = figures
    return judged(found, judge), told


def _target(record: Measurement | Comparison) -> str:
    return "" if record.provenance is None else record.provenance.target
