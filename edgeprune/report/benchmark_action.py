"""A gate's figures for github-action-benchmark (`tool: customSmallerIsBetter`): name, unit, value, range, extra.

The names stay the same from commit to commit, as that action draws one line for each; the metric is told as its error
rate, since smaller is to be better. What was not measured is left out, never 0.
"""

from __future__ import annotations

import math
from typing import Any

from edgeprune.records.gate import Gate
from edgeprune.report.gate import on, when

__all__ = ["entries"]

_UNITS = {"size": "bytes", "peak_memory": "bytes", "energy": "mJ", "accuracy": "%"}


def entries(gate: Gate) -> list[dict[str, Any]]:
    """One entry per figure that was measured."""
    reading = gate.reading
    extra = [f"{reading.file} {reading.sha256[:16]}", when(reading.origin)]
    if reading.origin.device:
        extra.append(on(reading.origin))
    found = []
    for name, figure in reading.figures.items():
        if figure.value is None or not math.isfinite(figure.value) or figure.kind != "measured":
            continue
        if name == "accuracy":
            entry = {"name": "error rate", "unit": "%", "value": round((1 - figure.value) * 100, 6)}
        else:
            entry = {"name": name, "unit": _UNITS.get(name, "ms"), "value": figure.value}
        lower, upper = reading.lower.get(name), figure.upper
        if lower is not None and upper is not None and lower < upper:
            entry["range"] = f"{lower:.6g} to {upper:.6g}"
        found.append({**entry, "extra": "\n".join(extra)})
    return found
