"""Readings and gates with figures that are known, for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.pipeline.check import judge
from edgeprune.records.budget import Budget
from edgeprune.records.figures import Figure
from edgeprune.records.gate import Gate, Origin, Reading
from edgeprune.records.gate_policy import Policy, parse_regression

DEVICE = {
    "board": "Raspberry Pi 4 Model B",
    "cpu": "Cortex-A72",
    "cpus": 4,
    "arch": "aarch64",
    "runtime": "onnxruntime",
    "runtime_version": "1.20.1",
    "threads": 1,
    "cores": [],
}
ORIGIN = Origin(
    "measured",
    "OK",
    started_at="2026-11-21T12:00:00+00:00",
    age_s=0.0,
    targets=("ssh://pi@camera",),
    profile="raspberry-pi-4b",
    device=DEVICE,
)
FIGURES = {
    "latency.p95": Figure(20.0, 21.0),
    "size": Figure(4_000_000.0, 4_000_000.0),
    "accuracy": Figure(0.90, 0.90),
    "energy": Figure(None, missing="no power sensor"),
}


def reading(figures: Mapping[str, Figure] = FIGURES, origin: Origin = ORIGIN, **others: Any) -> Reading:
    lower = {name: figure.value * 0.95 for name, figure in figures.items() if name == "latency.p95" and figure.value}
    return Reading(
        **{"name": "runs/1", "file": "model.onnx", "sha256": "ab" * 32, **others},
        figures=figures,
        lower=lower,
        origin=origin,
    )


def gate(
    budget: Mapping[str, Any],
    warn: Mapping[str, Any] | None = None,
    regression: Mapping[str, str] | None = None,
    *,
    now: Reading | None = None,
    baseline: Reading | None = None,
) -> Gate:
    """A reading judged by these limits."""
    worse = Budget(tuple(parse_regression(name, text) for name, text in (regression or {}).items()))
    policy = Policy(
        {"error": Budget.parse(budget), "warn": Budget.parse(warn or {})}, {"error": worse, "warn": Budget()}
    )
    return judge(now or reading(), FIGURES, policy, baseline=baseline)
