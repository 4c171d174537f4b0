"""Figures for github-action-benchmark."""

from __future__ import annotations

import math

from edgeprune.records.figures import Figure
from edgeprune.report import benchmark_action
from tests.gates import FIGURES, gate, reading


def test_smaller_is_better_for_all_of_them() -> None:
    found = benchmark_action.entries(gate({"size": "5MB"}))
    extra = (
        "model.onnx abababababababab\nmeasured now, at 2026-11-21T12:00:00+00:00\nmeasured on: Raspberry Pi 4 Model B "
        "(4 processors, aarch64), onnxruntime 1.20.1, 1 thread, profile raspberry-pi-4b, target ssh://pi@camera"
    )
    assert found == [
        {"name": "latency.p95", "unit": "ms", "value": 20.0, "range": "19 to 21", "extra": extra},
        {"name": "size", "unit": "bytes", "value": 4_000_000.0, "extra": extra},
        {"name": "error rate", "unit": "%", "value": 10.0, "extra": extra},
    ]


def test_what_was_not_measured_is_left_out() -> None:
    figures = {
        "size": Figure(None, missing="gone"),
        "energy": Figure(math.nan),
        "peak_memory": Figure(1.0, 1.0, kind="estimated"),
        "latency.p50": FIGURES["latency.p95"],
    }
    found = benchmark_action.entries(gate({"size": "5MB"}, now=reading(figures)))
    assert [entry["name"] for entry in found] == ["latency.p50"]
    assert "range" not in found[0]
