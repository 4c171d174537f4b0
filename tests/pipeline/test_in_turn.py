"""Latency relative to the dense model is that of runs in turn with it, whatever the device's speed is meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.graph.captured import Captured
from edgeprune.measure.pool import PoolMeasurement
from edgeprune.pipeline.building import Builder
from edgeprune.pipeline.in_turn import figures_in_turn, is_relative
from edgeprune.pipeline.task import CheckedTask
from edgeprune.pipeline.trials import Trials
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.comparison import Comparison
from edgeprune.records.measurement import Latency, Measurement, Outcome, Provenance
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Stage


def _where(target: str) -> Provenance:
    return Provenance(target, "host", {}, "onnxruntime", "1", 1, "", "2026-01-01T00:00:00+00:00")


def _measured(sha256: str, ms: float, target: str = "local") -> Measurement:
    latency = Latency(200, ms, 0.0, ms, ms, {"p50": ms}, {"p50": ms}, {"p50": ms * 1.01})
    return Measurement(sha256, Outcome.OK, _where(target), latency=latency)


def _compared(one: str, other: str, ratio: float, outcome: Outcome = Outcome.OK, target: str = "local") -> Comparison:
    ends = (ratio, ratio * 0.98, ratio * 1.02) if outcome is Outcome.OK else (None, None, None)
    message = "" if outcome is Outcome.OK else "on purpose"
    ratio_, lower, upper = ends
    where = _where(target)
    return Comparison(one, other, outcome, where, ratio=ratio_, lower=lower, upper=upper, message=message)


class Device:
    """1 ms per megabyte, at a speed that changes from measurement to measurement; in turn the ratio is the true one."""

    def __init__(self, *speeds: float, outcome: Outcome = Outcome.OK) -> None:
        self.speeds = list(speeds)
        self.outcome = outcome
        self.compared: list[tuple[int, float]] = []

    def measure(self, artifact: Artifact) -> Measurement:
        return _measured(artifact.sha256, artifact.size_bytes / 1e6 / self.speeds.pop(0))

    def compare(self, artifact: Artifact, against: Artifact, *, workers: int, seconds: float) -> Comparison:
        self.compared.append((workers, seconds))
        ratio = artifact.size_bytes / against.size_bytes
        return _compared(artifact.sha256, against.sha256, ratio, self.outcome)


def _trials(captured: Captured, task: CheckedTask, folder: Path, device: Device) -> Trials:
    return Trials(Builder(captured, task, FineTuneSettings(epochs=0)), device, folder, in_turn=True)


def test_the_devices_speed_cancels(captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path) -> None:
    device = Device(1.0, 0.5, 2.0)
    trials = _trials(captured, task, tmp_path, device)
    dense = trials(Candidate(), Stage.MEASURE, 0)
    slow, fast = trials(half, Stage.MEASURE, 1), trials(half, Stage.FINAL, 2)
    sizes = [trial.figures["size"].value or 0.0 for trial in (dense, slow)]
    assert dense.figures["latency.p50"].value == pytest.approx(sizes[0] / 1e6)
    assert "in_turn" not in dense.details
    for trial, alone in ((slow, sizes[1] / 1e6 / 0.5), (fast, sizes[1] / 1e6 / 2.0)):
        figure = trial.figures["latency.p50"]
        assert figure.value == pytest.approx(sizes[1] / 1e6)
        assert figure.upper == pytest.approx(1.02 * sizes[1] / 1e6)
        told = trial.details["in_turn"]["local"]
        assert told["ratio"] == pytest.approx(sizes[1] / sizes[0])
        assert told["alone_ms"] == pytest.approx(alone)
    assert device.compared == [(4, 1.0), (8, 1.5)]  # a final one is to be known better
    written = json.loads((tmp_path / "trials/0002/in_turn.json").read_text())
    assert written["ratio"] == fast.details["in_turn"]["local"]["ratio"]
    check = Budget.parse({"latency": {"p50": "100% of dense"}}).check(slow.figures, dense.figures)
    assert check.limits[0].value == slow.figures["latency.p50"].value


def test_a_comparison_that_fails_is_the_trials_outcome(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    trials = _trials(captured, task, tmp_path, Device(1.0, 1.0, outcome=Outcome.LOST))
    trials(Candidate(), Stage.MEASURE, 0)
    trial = trials(half, Stage.MEASURE, 1)
    assert trial.outcome == "LOST"
    assert trial.message == "in turn with the dense model: on purpose"
    assert trial.figures["latency.p50"].value is None


def test_two_models_that_do_not_fit_together_are_measured_apart(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    trials = _trials(captured, task, tmp_path, Device(1.0, 0.5, outcome=Outcome.OOM))
    trials(Candidate(), Stage.MEASURE, 0)
    trial = trials(half, Stage.MEASURE, 1)
    assert trial.outcome == "OK"
    assert trial.figures["latency.p50"].value == pytest.approx((trial.figures["size"].value or 0.0) / 1e6 / 0.5)
    assert trial.details["in_turn"]["local"] == {"outcome": "OOM", "message": "on purpose"}


def test_of_a_pool_the_worst_ratio_of_its_own_dense_model_is_judged(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path / "m.onnx", "onnx", "a", 100, (), ())
    measured = PoolMeasurement({n: _measured("a", ms, n) for n, ms in (("a", 9.0), ("b", 9.0))}, "worst", Outcome.OK)
    comparisons = {"a": _compared("a", "d", 0.5, target="a"), "b": _compared("a", "d", 0.6, target="b")}
    dense = {"a": _measured("d", 10.0, "a"), "b": _measured("d", 8.0, "b")}
    figures, told = figures_in_turn(measured, comparisons, dense, artifact, 0.9)
    assert figures["latency.p50"].value == pytest.approx(5.0)
    assert figures["latency.p50"].upper == pytest.approx(5.1)
    assert figures["accuracy"].value == 0.9
    assert told["b"]["ratio"] == 0.6


@pytest.mark.parametrize(
    ("latency", "expected"),
    [({"p50": "50% of dense"}, True), ({"p50": "3ms"}, False), ({"p95": "50% of dense"}, False)],
)
def test_only_limits_relative_to_the_dense_median_ask_for_it(latency: dict[str, str], expected: bool) -> None:
    assert is_relative(Budget.parse({"latency": latency})) is expected
