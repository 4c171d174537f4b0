"""Figures: the named numbers of one model that a budget is checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeprune import units
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Measurement, Outcome

__all__ = ["Figure", "Figures", "figures_of", "format_figure"]

Kind = Literal["measured", "estimated"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `value` in the metric's unit (ms, bytes, mJ, fraction); `upper` its 95 % upper confidence bound.

    `kind` tells measured from estimated; `missing` is the reason where there is no value.
    """

    value: float | None
    upper: float | None = None
    kind: Kind = "measured"
    missing: str = ""


_LATENCY_FIGURES = tuple(f"latency.{name}" for name in ("p50", "p90", "p95", "p99", "mean"))
_DEVICE_FIGURES = (*_LATENCY_FIGURES, "peak_memory", "energy")

Figures = Mapping[str, Figure]  # "latency.p50", "peak_memory", "size", "energy", "accuracy"


def figures_of(measurement: Measurement | None, artifact: Artifact | None, accuracy: float | None) -> dict[str, Figure]:
    """All figures that a trial has; what is missing carries its reason.

    A measurement that did not end well gives none, whatever parts it carries: partial data passes no limit.
    """
    figures: dict[str, Figure] = {}
    if accuracy is not None:
        figures["accuracy"] = Figure(accuracy, accuracy)
    if artifact is not None:
        figures["size"] = Figure(float(artifact.size_bytes), float(artifact.size_bytes))
    if measurement is None:
        return figures
    if measurement.outcome is not Outcome.OK:
        why = f"{measurement.outcome.value}: {measurement.message}"
        return figures | {name: Figure(None, missing=why) for name in _DEVICE_FIGURES}
    if measurement.latency is not None:
        for name, value in measurement.latency.percentile_ms.items():
            figures[f"latency.{name}"] = Figure(value, measurement.latency.upper_ms.get(name))
        figures["latency.mean"] = Figure(measurement.latency.mean_ms, measurement.latency.upper_ms.get("mean"))
        for name, reason in measurement.latency.refused.items():
            figures[f"latency.{name}"] = Figure(None, missing=reason)
    else:
        reason = measurement.missing.get("latency", "not measured")
        figures |= {name: Figure(None, missing=reason) for name in _LATENCY_FIGURES}
    if measurement.memory is not None:
        memory = measurement.memory
        peak = float(memory.model_peak_bytes + (memory.nvmap_peak_bytes or 0))
        figures["peak_memory"] = Figure(peak, peak + memory.noise_bytes + memory.swapped_bytes)
    else:
        figures["peak_memory"] = Figure(None, missing=measurement.missing.get("peak_memory", "not measured"))
    if measurement.energy is not None:
        figures["energy"] = Figure(measurement.energy.net_mj, measurement.energy.net_upper_mj)
    else:
        figures["energy"] = Figure(None, missing=measurement.missing.get("energy", "not measured"))
    return figures


def format_figure(name: str, value: float, like: float | None = None) -> str:
    """A figure's value with its unit: "0.412 ms", "3.21 MB", "96.20 %"; in that of `like`, where the two are near."""
    if name == "accuracy":
        return f"{value:.2%}".replace("%", " %")
    if name in ("peak_memory", "size"):
        return units.format_size(value, like)
    return units.format_energy(value, like) if name == "energy" else units.format_duration(value, like)
