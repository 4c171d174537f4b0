from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgeprune.errors import StorageError, UsageError
from edgeprune.export import manifest
from edgeprune.graph.captured import Captured
from edgeprune.measure.sentinel import Sentinel
from edgeprune.pipeline import baseline
from edgeprune.pipeline.building import Builder, shortened, trial_seed
from edgeprune.pipeline.space import importance_scores
from edgeprune.pipeline.task import CheckedTask, load_task
from edgeprune.pipeline.trials import Trials
from edgeprune.records import codec
from edgeprune.records.artifact import Artifact
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.measurement import Latency, Measurement, Outcome
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Stage


class Stopwatch:
    """Stands in for a measuring session: a latency from the file's size, and failures on demand."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.measured: list[Artifact] = []

    def measure(self, artifact: Artifact) -> Measurement:
        self.measured.append(artifact)
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome.OK
        if outcome is not Outcome.OK:
            return Measurement(artifact.sha256, outcome, None, message="on purpose")
        ms = artifact.size_bytes / 1e6
        latency = Latency(200, ms, 0.0, ms, ms, {"p50": ms}, {"p50": ms}, {"p50": ms * 1.01}, raw_ms=(ms,) * 200)
        return Measurement(artifact.sha256, outcome, None, latency=latency)


def trials(captured: Captured, task: CheckedTask, run_dir: Path, session: Stopwatch, seed: int = 0) -> Trials:
    return Trials(Builder(captured, task, FineTuneSettings(epochs=2), seed=seed), session, run_dir)


def test_the_dense_model_is_measured_as_it_is(captured: Captured, task: CheckedTask, tmp_path: Path) -> None:
    session = Stopwatch()
    trial = trials(captured, task, tmp_path, session)(Candidate(), Stage.MEASURE, 0)
    assert trial.figures["accuracy"].value == task.evaluate(captured.module) > 0.85
    assert trial.figures["size"].value == (tmp_path / "trials/0000/model.onnx").stat().st_size
    assert trial.artifact == "trials/0000/model.onnx"
    assert trial.details["recovery"] == "none: the dense model"
    assert trial.details["params"] == captured.cost().params
    artifact = manifest.read(tmp_path / "trials/0000/model.onnx")
    assert artifact == session.measured[0]


def test_screening_ends_with_the_accuracy(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    session = Stopwatch()
    trial = trials(captured, task, tmp_path, session)(half, Stage.SCREEN, 1)
    assert session.measured == []
    assert set(trial.figures) == {"accuracy"}
    assert trial.outcome == "OK"
    assert trial.artifact is None
    assert trial.details["recovery"] == "batch-norm re-estimation"
    assert trial.details["verification_error"] < 1e-4
    data = json.loads((tmp_path / "trials/0001/candidate.json").read_text())
    assert codec.from_json(data) == half


def test_measuring_writes_the_artifact_and_the_measurement(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    trial = trials(captured, task, tmp_path, Stopwatch())(half, Stage.MEASURE, 1)
    path = tmp_path / "trials/0001/model.onnx"
    size = path.stat().st_size
    measurement = codec.from_json(json.loads((tmp_path / "trials/0001/measurement.json").read_text()))
    assert isinstance(measurement, Measurement)
    assert measurement.artifact_sha256 == manifest.read(path).sha256
    assert measurement.latency is not None
    assert trial.figures["latency.p50"] == Figure(size / 1e6, size / 1e6 * 1.01)
    assert trial.details["macs"] < captured.cost().macs
    assert trial.details["parity_error"] < 1e-3
    assert not (tmp_path / "trials/0001/model.pt2").exists()


def test_a_final_trial_is_fine_tuned_and_its_files_agree(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    before = baseline.fingerprint(captured.module)
    run = trials(captured, task, tmp_path, Stopwatch())
    screened, final = run(half, Stage.SCREEN, 1), run(half, Stage.FINAL, 2)
    assert final.details["recovery"] == "fine-tuning"
    assert final.details["epochs"] == 2
    assert (final.figures["accuracy"].value or 0) > (screened.figures["accuracy"].value or 1)
    assert baseline.fingerprint(captured.module) == before, "the dense model was trained, too"
    assert (tmp_path / "trials/0002/finetune.safetensors").exists(), "it may be measured again by another process"
    run.settled(2)
    assert not (tmp_path / "trials/0002/finetune.safetensors").exists()
    # The graph loads where the model's class is unknown and computes what the ONNX file computes.
    np.save(tmp_path / "x.npy", task.example_inputs()[0].numpy())
    code = (
        "import sys, numpy, torch; from edgeprune.graph.storage import load\n"
        "module = load(sys.argv[1]).module\n"
        "numpy.save(sys.argv[3], module(torch.from_numpy(numpy.load(sys.argv[2]))).detach().numpy())"
    )
    paths = [str(tmp_path / name) for name in ("trials/0002/model.pt2", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, cwd=tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "trials/0002/model.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: np.load(tmp_path / "x.npy")})
    np.testing.assert_allclose(output, np.load(tmp_path / "y.npy"), rtol=1e-3, atol=1e-4)


def test_the_same_trial_gives_the_same_bytes(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    first = trials(captured, task, tmp_path / "a", Stopwatch())(half, Stage.FINAL, 1)
    torch.manual_seed(2)
    second = trials(captured, task, tmp_path / "b", Stopwatch())(half, Stage.FINAL, 1)
    assert first.figures == second.figures
    files = [(tmp_path / run / "trials/0001/model.onnx").read_bytes() for run in ("a", "b")]
    assert files[0] == files[1]
    other = trials(captured, task, tmp_path / "c", Stopwatch(), seed=1)(half, Stage.FINAL, 1)
    assert other.details["final_loss"] != first.details["final_loss"]


def test_a_repeated_measurement_does_not_train_again(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    session = Stopwatch(Outcome.THROTTLED, Outcome.OK)
    run = trials(captured, task, tmp_path, session)
    throttled = run(half, Stage.FINAL, 3)
    checkpoint = tmp_path / "trials/0003/finetune.safetensors"
    assert throttled.outcome == "THROTTLED"
    assert throttled.figures["latency.p50"].missing == "THROTTLED: on purpose"
    assert checkpoint.exists(), "a resumed run goes on from here"
    written = (tmp_path / "trials/0003/model.onnx").stat().st_mtime_ns
    again = run(half, Stage.FINAL, 3)
    assert again.outcome == "OK"
    assert (tmp_path / "trials/0003/model.onnx").stat().st_mtime_ns == written


def test_without_a_training_part_nothing_is_recovered(
    captured: Captured, folder: Path, half: Candidate, tmp_path: Path
) -> None:
    bare = load_task("task.py:NoTraining", folder)
    trial = trials(captured, bare, tmp_path, Stopwatch())(half, Stage.FINAL, 1)
    assert trial.details["recovery"] == "none: the task has no train_batches() and loss()"
    with pytest.raises(UsageError, match="'taylor' needs data"):
        importance_scores(captured, bare, tmp_path / "importance.json", name="taylor", seed=0, reuse=False)


def test_out_of_memory_is_the_trials_outcome(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    trial = trials(captured, task, tmp_path, Stopwatch(Outcome.OOM))(half, Stage.MEASURE, 1)
    assert (trial.outcome, trial.message) == ("OOM", "on purpose")
    assert trial.figures["peak_memory"].missing == "OOM: on purpose"


def test_a_full_disk_is_a_storage_error(captured: Captured, task: CheckedTask, tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("in the way")
    with pytest.raises(StorageError, match="trials"):
        trials(captured, task, tmp_path, Stopwatch())(Candidate(), Stage.MEASURE, 0)


def test_seeds_depend_on_seed_and_candidate_alone(half: Candidate) -> None:
    assert trial_seed(0, half) == trial_seed(0, Candidate(dict(half.kept)))
    assert len({trial_seed(0, half), trial_seed(1, half), trial_seed(0, Candidate())}) == 3


def test_fine_tuning_that_makes_it_worse_is_taken_back(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    settings = FineTuneSettings(epochs=1, learning_rate=1.0, momentum=0.0)
    final = Trials(Builder(captured, task, settings), Stopwatch(), tmp_path)(half, Stage.FINAL, 1)
    before = final.details["accuracy_before_fine_tuning"]
    assert final.figures["accuracy"].value == before
    assert final.details["recovery"] == "batch-norm re-estimation; fine-tuning lowered the accuracy and was taken back"
    session = onnxruntime.InferenceSession(tmp_path / "trials/0001/model.onnx")
    (inputs,) = task.example_inputs()
    (logits,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    reestimated = Trials(Builder(captured, task, settings), Stopwatch(), tmp_path)(half, Stage.MEASURE, 2)
    assert reestimated.figures["accuracy"].value == before
    other = onnxruntime.InferenceSession(tmp_path / "trials/0002/model.onnx")
    np.testing.assert_array_equal(logits, other.run(None, {other.get_inputs()[0].name: inputs.numpy()})[0])


class Warming(Stopwatch):
    """A device that is a fifth slower from the third measurement on."""

    def measure(self, artifact: Artifact) -> Measurement:
        found = super().measure(artifact)
        latency = found.latency
        if latency is None:
            return found
        slower = 1.2 if len(self.measured) > 2 else 1.0
        ms = {"p50": slower * latency.percentile_ms["p50"]}
        return replace(found, latency=replace(latency, percentile_ms=ms, lower_ms=ms, upper_ms=ms))


def test_a_device_that_drifts_is_found_out(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    session = Warming()
    evaluate = trials(captured, task, tmp_path, session)
    evaluate.sentinel = Sentinel(every_trials=2, every_s=1e9, first_trials=2)
    dense = evaluate(Candidate(), Stage.MEASURE, 0)
    first, second = (evaluate(half, Stage.MEASURE, number) for number in (1, 2))
    assert "dense_again" not in first.details
    (entry,) = second.details["dense_again"].values()
    assert (entry["drifted"], entry["ratio"]) == (True, pytest.approx(1.2))
    assert entry["first_ms"] == dense.figures["latency.p50"].value
    assert session.measured[-1].sha256 == session.measured[0].sha256
    assert second.figures["latency.p50"].value == pytest.approx(1.2 * (first.figures["latency.p50"].value or 0))


def test_a_resumed_run_measures_the_dense_model_again(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    trials(captured, task, tmp_path, Stopwatch())(Candidate(), Stage.MEASURE, 0)
    session = Stopwatch()
    resumed = trials(captured, task, tmp_path, session)
    resumed.sentinel = Sentinel()
    trial = resumed(half, Stage.MEASURE, 1)
    (entry,) = trial.details["dense_again"].values()
    assert (entry["drifted"], entry["ratio"]) == (False, 1.0)
    assert len(session.measured) == 2


def test_a_short_fine_tuning_ranks_without_the_device(
    captured: Captured, task: CheckedTask, half: Candidate, tmp_path: Path
) -> None:
    session = Stopwatch()
    settings = FineTuneSettings(epochs=7)
    assert shortened(settings).epochs == 2
    assert shortened(FineTuneSettings(epochs=0)).epochs == 0
    run = Trials(Builder(captured, task, FineTuneSettings(epochs=6)), session, tmp_path)
    trial = run(half, Stage.TUNE, 0)
    assert trial.details["recovery"] == "fine-tuning"
    assert trial.details["epochs"] == 1
    assert trial.details["fine_tuning_steps"] == 21  # 1300 examples by 64
    assert trial.figures["accuracy"].value >= trial.details["accuracy_before_fine_tuning"]
    assert set(trial.figures) == {"accuracy"}
    assert not session.measured
    run.settled(0)
    assert sorted(path.name for path in (tmp_path / "trials/0000").iterdir()) == ["candidate.json"]
