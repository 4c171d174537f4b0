"""Cost models recalibrated from whole-model measurements: biased classes, outliers, and what no measurement shows."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.records.candidate import Candidate
from edgeprune.search.calibration import calibrated
from edgeprune.search.costs import MetricModel, Term


def test_calibration_finds_biased_classes_and_ignores_an_outlier() -> None:
    random = np.random.default_rng(0)
    widths = tuple(range(8, 65, 8))
    groups = ("a", "b", "c")
    terms = tuple(Term(g, g, (g,), (widths,), np.asarray(widths, dtype=float)) for g in groups)
    truth = MetricModel("latency.p50", terms, weights={"a": 0.85, "b": 1.2, "c": 1.0}, offset=5.0)
    assumed = MetricModel("latency.p50", terms, offset=5.0)
    seen = []
    for index in range(10):
        kept = {g: tuple(range(int(random.choice(widths)))) for g in groups}
        candidate = Candidate({g: units for g, units in kept.items() if len(units) < 64})
        value = truth.predict(candidate) * (1.25 if index == 3 else 1.0)
        seen.append((candidate, value))
    found = calibrated(assumed, seen, 100.0)
    for kind, weight in truth.weights.items():
        assert found.weights[kind] == pytest.approx(weight, abs=0.05)
    for index, (candidate, value) in enumerate(seen):
        assert found.predict(candidate) == pytest.approx(truth.predict(candidate), rel=0.02), (index, value)
    assert all(weight >= 0 for weight in found.weights.values())
    assert calibrated(assumed, [], 100.0) is assumed


def test_calibration_leaves_alone_what_no_measurement_shows() -> None:
    """Neither what was assumed to be nothing nor what was not is moved by networks that have none of it."""
    costs = {
        "conv": 0.002,
        "linear": 0.14967999999999995,
        "attention": 0.065692,
        "misaligned16": 0.0,
        "misaligned32": 0.0,
        "movement": 0.010662399999999997,
        "elementwise": 0.005644799999999999,
        "norm": 0.005644799999999999,
        "reduce": 1.28e-05,
        "call": 0.06600000000000004,
        "pool": 0.0,
    }
    weights = {kind: 0.0 if kind.startswith("misaligned") else 0.9485001480332537 for kind in costs}
    terms = tuple(Term(k, k, ("g",), ((24, 32),), np.array([cost or 0.1, cost])) for k, cost in costs.items())
    metric = MetricModel("latency.p50", terms, weights=weights)
    dense, narrow = Candidate(), Candidate({"g": tuple(range(24))})
    found = calibrated(metric, [(dense, 0.289612), (dense, 0.29461)], 0.1)
    for kind in ("misaligned16", "misaligned32", "pool"):
        assert found.weights[kind] == weights[kind]
    found = calibrated(metric, [(dense, 0.29), (narrow, 0.45)], 0.4)
    assert found.weights["misaligned16"] > 0  # once it is seen, it counts
