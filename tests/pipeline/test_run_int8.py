"""Runs that quantise: limits of the float network, judged on int8 files that the device computes as this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgeprune.errors import ParityError, UsageError
from edgeprune.export import manifest
from edgeprune.export.runtime_module import RuntimeModule
from edgeprune.graph.capture import capture
from edgeprune.measure.session import Session
from edgeprune.pipeline.executors.base import Plan
from edgeprune.pipeline.executors.work import job_text, work
from edgeprune.pipeline.run import run
from edgeprune.pipeline.run_checks import check_project, run_settings
from edgeprune.pipeline.task import CheckedTask, load_task
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import Budget, State
from edgeprune.records.project import Project, load_project
from edgeprune.records.result import Result
from edgeprune.records.trial import Job, Stage, Trial
from edgeprune.report.text import render
from edgeprune.search.journal import read_trials
from tests.pipeline.small_project import PROJECT, write_project

INT8 = (
    PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16").replace("50% of dense", "25% of dense")
    + "export: {quantize: int8}\n"
)


@pytest.fixture(scope="module", autouse=True)
def own_device_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(tmp_path_factory.mktemp("lock") / "device.lock"))
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return load_project(write_project(tmp_path_factory.mktemp("project"), INT8))


@pytest.fixture(scope="module")
def task(project: Project) -> CheckedTask:
    return load_task(project.task, project.folder)


@pytest.fixture(scope="module")
def finished(project: Project, task: CheckedTask, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    run_dir = tmp_path_factory.mktemp("runs") / "int8"
    return run_dir, run(project, task=task, run_dir=run_dir)


def operators(run_dir: Path, trial: Trial) -> set[str]:
    assert trial.artifact is not None
    return {node.op_type for node in onnx.load(run_dir / trial.artifact).graph.node}


def test_the_budget_is_of_the_float_network_and_judged_on_int8(finished: tuple[Path, Result]) -> None:
    run_dir, result = finished
    assert result.status == "accepted"
    assert result.check is not None
    assert result.check.state is State.MET
    trials = read_trials(run_dir)
    assert "QuantizeLinear" not in operators(run_dir, trials[0])
    assert all("QuantizeLinear" in operators(run_dir, trial) for trial in trials[1:] if trial.artifact)
    dense, alone, best = trials[0], trials[1], result.best
    assert best is not None
    assert (alone.candidate.is_dense, alone.stage) == (True, Stage.FINAL)
    assert 0.25 < (alone.figures["size"].value or 0) / (dense.figures["size"].value or 1) < 0.5  # int8 does not suffice
    assert not best.candidate.is_dense
    assert (best.figures["size"].value or 0) <= 0.25 * (dense.figures["size"].value or 0)


def test_the_accuracy_is_that_of_the_file(finished: tuple[Path, Result], task: CheckedTask) -> None:
    run_dir, result = finished
    assert result.best is not None
    told = result.best.details["quantised"]
    artifact = manifest.read(run_dir / "best" / "model.onnx")
    assert artifact.provenance["float_sha256"] == manifest.read(run_dir / "best" / "float.onnx").sha256
    captured = capture(task.model().eval(), task.example_inputs())
    module = RuntimeModule(artifact, captured.module, captured.example_inputs)
    assert result.best.figures["accuracy"].value == task.evaluate(module.eval())
    assert told["float_accuracy"] == pytest.approx(result.best.figures["accuracy"].value, abs=0.02)
    assert told["sqnr_db"] > 20
    assert f"signal to quantisation noise {told['sqnr_db']:.1f} dB" in render(
        json.loads((run_dir / "result.json").read_text())
    )


def test_both_schemes_were_tried_on_the_device(finished: tuple[Path, Result]) -> None:
    run_dir, result = finished
    int8 = result.provenance["int8"]
    assert [entry["scheme"] for entry in int8["tried"]] == ["per-tensor", "per-channel"]
    for entry in int8["tried"]:
        assert entry["lower"] < entry["ratio"] < entry["upper"]
        assert entry["difference"] <= 0.05
        assert entry["accuracy"] > 0.9
    assert int8["scheme"] in ("per-tensor", "per-channel")
    assert int8["device_difference"] <= 0.05
    assert json.loads((run_dir / "quantisation.json").read_text())["tried"] == int8["tried"]
    assert all(t.details["quantised"]["scheme"] == int8["scheme"] for t in read_trials(run_dir)[1:] if t.artifact)


def test_a_resumed_run_comes_to_the_same(finished: tuple[Path, Result], project: Project, task: CheckedTask) -> None:
    run_dir, result = finished
    again = run(project, task=task, run_dir=run_dir, resume=True)
    assert again.best == result.best
    assert len(read_trials(run_dir)) == result.trials


def test_a_worker_makes_the_same_file(
    finished: tuple[Path, Result], project: Project, task: CheckedTask, tmp_path: Path
) -> None:
    run_dir, result = finished
    trial = next(t for t in read_trials(run_dir) if t.stage is Stage.MEASURE and not t.candidate.is_dense)
    plan = replace(Plan.of(project, task, task.model()), scheme=result.provenance["int8"]["scheme"])
    threads = torch.get_num_threads()
    try:
        reply = work(plan.to_text(), job_text(Job(trial.number, trial.stage, trial.candidate)), tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert json.loads(reply)["details"]["quantised"] == trial.details["quantised"]
    assert trial.artifact is not None
    assert (tmp_path / "model.onnx").read_bytes() == (run_dir / trial.artifact).read_bytes()


def test_int8_alone_is_taken_where_it_suffices(project: Project, task: CheckedTask, tmp_path: Path) -> None:
    export = replace(project.export, scheme="per-tensor")
    wide = replace(project, budget=Budget.parse({"size": "60% of dense"}), export=export)
    result = run(wide, task=task, run_dir=tmp_path / "run")
    assert (result.status, result.trials) == ("accepted", 2)
    assert result.best is not None
    assert result.best.candidate.is_dense
    assert (tmp_path / "run" / "best" / "model.onnx").stat().st_size == result.best.figures["size"].value


def test_a_device_that_computes_otherwise_is_refused(
    project: Project, task: CheckedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def garbage(_: Session, artifact: Artifact, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {spec.name: np.zeros((2, 10), np.float32) for spec in artifact.outputs}

    monkeypatch.setattr(Session, "outputs", garbage)
    with pytest.raises((UsageError, ParityError), match="computes int8 otherwise than this machine"):
        run(project, task=task, run_dir=tmp_path / "run")


def test_settings_of_a_float_run_are_as_before_int8(project: Project) -> None:
    plain = replace(project, export=replace(project.export, quantize="none"))
    assert run_settings(plain, Budget())["export"] == {"format": "onnx"}
    assert run_settings(project, Budget())["export"]["quantize"] == "int8"
    with pytest.raises(UsageError, match="no int8 scheme 'per-tensr'"):
        check_project(replace(project, export=replace(project.export, scheme="per-tensr")))
