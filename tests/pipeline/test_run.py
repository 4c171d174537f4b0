from __future__ import annotations

import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeprune.errors import StorageError, TargetError, UsageError
from edgeprune.graph.storage import load
from edgeprune.pipeline.run import new_run_dir, run
from edgeprune.pipeline.run_checks import effective_budget
from edgeprune.pipeline.task import CheckedTask, check_task, load_task
from edgeprune.progress import SILENT, Step
from edgeprune.records import codec
from edgeprune.records.budget import Budget, State
from edgeprune.records.profile import DeviceProfile
from edgeprune.records.project import Project, load_project
from edgeprune.records.result import Result
from edgeprune.records.trial import Stage
from edgeprune.search.journal import read_trials
from tests.pipeline.small_project import PROJECT, write_project

# Few widths and a limit on the size, which has no noise: every run of it comes to the same candidate.
COARSE = PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16")


@dataclass(frozen=True)
class Lines:
    """Progress that keeps what is said."""

    said: list[str]

    def say(self, message: str) -> None:
        self.said.append(message)

    def step(self, description: str, total: int | None = None) -> AbstractContextManager[Step]:
        return SILENT.step(description, total)


@pytest.fixture(scope="module", autouse=True)
def own_device_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests that measure at the same time disturb each other's figures, but shall not wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(tmp_path_factory.mktemp("lock") / "device.lock"))
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return load_project(write_project(tmp_path_factory.mktemp("project"), COARSE))


@pytest.fixture(scope="module")
def task(project: Project) -> CheckedTask:
    return load_task(project.task, project.folder)


@pytest.fixture(scope="module")
def finished(project: Project, task: CheckedTask, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    run_dir = tmp_path_factory.mktemp("runs") / "smooth"
    return run_dir, run(project, task=task, run_dir=run_dir)


def test_the_run_is_accepted_by_measurement(finished: tuple[Path, Result], task: CheckedTask) -> None:
    _, result = finished
    assert result.status == "accepted"
    assert result.check is not None
    assert result.check.state is State.MET
    assert result.best is not None
    assert result.best.stage is Stage.FINAL
    details = result.best.details
    assert details["epochs"] == 2
    # Fine-tuning is kept where it helps: never does a final trial end worse than its batch-norm statistics made it.
    assert details["accuracy_before_fine_tuning"] <= (result.best.figures["accuracy"].value or 0)
    dense, best = result.dense.figures, result.best.figures
    assert dense["accuracy"].value == task.evaluate(task.model())
    assert (best["size"].value or 0) <= 0.5 * (dense["size"].value or 0)
    for figures in (dense, best):
        for name in ("accuracy", "latency.p50", "latency.p95", "peak_memory", "size"):
            assert figures[name].kind == "measured"
            assert (figures[name].value or 0) > 0
    assert "no power sensor" in best["energy"].missing


def test_the_folder_holds_what_it_should(finished: tuple[Path, Result]) -> None:
    run_dir, result = finished
    assert list(run_dir.glob("trials/*/finetune.safetensors")) == []  # nothing is to be gone on with
    written = codec.from_json(json.loads((run_dir / "result.json").read_text()))
    assert written == result
    assert len(read_trials(run_dir)) == result.trials == len(list((run_dir / "trials").iterdir()))
    assert result.best is not None
    number = f"{result.best.number:04d}"
    names = {"candidate.json", "measurement.json", "model.onnx", "model.onnx.manifest.json", "model.pt2"}
    assert {path.name for path in (run_dir / "best").iterdir()} == names
    for name in names:
        assert (run_dir / "best" / name).read_bytes() == (run_dir / "trials" / number / name).read_bytes()
    assert result.provenance["files"] == {"artifact": "best/model.onnx", "graph": "best/model.pt2"}
    assert not list(run_dir.rglob(".*"))


def test_the_artifact_has_the_accuracy_that_is_reported(finished: tuple[Path, Result], task: CheckedTask) -> None:
    run_dir, result = finished
    session = onnxruntime.InferenceSession(run_dir / "best/model.onnx")
    x, y = task._task.test
    (scores,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert result.best is not None
    assert float(np.mean(scores.argmax(1) == y.numpy())) == pytest.approx(result.best.figures["accuracy"].value)
    assert task.evaluate(load(run_dir / "best/model.pt2").module) == result.best.figures["accuracy"].value


def test_a_finished_run_resumes_to_the_same_files(
    finished: tuple[Path, Result], project: Project, task: CheckedTask, tmp_path: Path
) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished[0], run_dir)
    before = (run_dir / "result.json").read_bytes(), (run_dir / "journal.jsonl").read_bytes()
    shutil.rmtree(run_dir / "best")
    (run_dir / "result.json").unlink()
    assert run(project, task=task, run_dir=run_dir, resume=True).exit_code == 0
    after = (run_dir / "result.json").read_bytes(), (run_dir / "journal.jsonl").read_bytes()
    assert [re.sub(rb'"boot_id": "[^"]*"', b"", text) for text in after] == [
        re.sub(rb'"boot_id": "[^"]*"', b"", text) for text in before
    ]
    assert (run_dir / "best/model.onnx").read_bytes() == (finished[0] / "best/model.onnx").read_bytes()


def test_other_inputs_are_refused_by_name(
    finished: tuple[Path, Result], project: Project, task: CheckedTask, tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "copy")
    other = replace(project, search=replace(project.search, seed=5))
    with pytest.raises(UsageError, match=r"other inputs: search\.seed was 0, is now 5$"):
        run(other, task=task, run_dir=tmp_path / "copy", resume=True)
    with pytest.raises(UsageError, match="already holds a run"):
        run(project, task=task, run_dir=tmp_path / "copy")


def test_another_device_is_refused(
    finished: tuple[Path, Result], project: Project, task: CheckedTask, tmp_path: Path
) -> None:
    run_dir = tmp_path / "copy"
    shutil.copytree(finished[0], run_dir)
    journal = run_dir / "journal.jsonl"
    journal.write_text(re.sub(r'("device":\{[^}]*"cpus":)\d+', r"\g<1>999", journal.read_text()))
    with pytest.raises(UsageError, match="measured on another device: cpus was 999, is"):
        run(project, task=task, run_dir=run_dir, resume=True)


def test_another_architecture_is_refused_before_the_model_is_asked_for(project: Project, tmp_path: Path) -> None:
    class Unused:
        def model(self) -> None:
            raise AssertionError("asked for the model")

        example_inputs = evaluate = model

    other = "x86-64" if platform.machine().startswith(("arm", "aarch64")) else "armv8.0-a"
    (tmp_path / "board.yaml").write_text(f"name: board\ntitle: My board\nisa: {other}\n")
    device = replace(project.device, profile=str(tmp_path / "board.yaml"))
    with pytest.raises(UsageError, match=f"local is not a device of the profile 'board'.*My board is {other}"):
        run(replace(project, device=device), task=check_task(Unused()), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_result_says_what_was_measured_on_and_where_it_differs(
    finished: tuple[Path, Result], project: Project, task: CheckedTask, tmp_path: Path
) -> None:
    on = finished[1].provenance["measured_on"]
    assert on["target"] == "local"
    assert on["profile"] == "quick"
    assert on["cpus"] == os.cpu_count()
    assert (on["runtime"], on["runtime_version"], on["threads"]) == ("onnxruntime", onnxruntime.__version__, 1)
    assert on["differences"] == []
    (tmp_path / "board.yaml").write_text(f"name: board\nextends: {project.folder / 'quick.yaml'}\nram: 1KiB\n")
    said: list[str] = []
    other = replace(
        project,
        device=replace(project.device, profile=str(tmp_path / "board.yaml")),
        budget=Budget.parse({"energy": "1mJ"}),  # ends with the baseline
    )
    result = run(other, task=task, run_dir=tmp_path / "run", progress=Lines(said))
    (difference,) = result.provenance["measured_on"]["differences"]
    assert difference.endswith("1024 in the profile")
    assert f"warning: the device is not what the profile 'board' says: {difference}" in said


def test_a_resumed_run_judges_as_it_began(finished: tuple[Path, Result], project: Project, tmp_path: Path) -> None:
    copy = write_project(tmp_path / "copy", COARSE)
    shutil.copy(project.folder / "weights.safetensors", copy.parent)
    run_dir = tmp_path / "run"
    shutil.copytree(finished[0], run_dir)
    file = copy.parent / "task.py"
    text = file.read_text()
    same = replace(project, path=copy)
    said: list[str] = []
    file.write_text(text + "# a comment\n")
    run(same, task=load_task(project.task, copy.parent), run_dir=run_dir, resume=True, progress=Lines(said))
    assert "warning: changed since the run began: task.py" in said
    file.write_text(text.replace("(model.eval()(self.test[0])", "0.5 * (model.eval()(self.test[0])"))
    with pytest.raises(UsageError, match=r"evaluate\(\) gave the dense model .* now: task\.py changed"):
        run(same, task=load_task(project.task, copy.parent), run_dir=run_dir, resume=True)


def test_an_impossible_limit_is_infeasible_with_what_was_reached(
    project: Project, task: CheckedTask, tmp_path: Path
) -> None:
    tight = replace(project, budget=Budget.parse({"latency": {"p50": "1us"}}))
    result = run(tight, task=task, run_dir=tmp_path)
    assert result.exit_code == 4
    measured = {trial.number: trial.figures["latency.p50"].value or 0.0 for trial in read_trials(tmp_path)}
    value, number = result.reachable["latency.p50"]
    assert value == measured[number] == min(measured.values()) > 0.001
    assert f"(trial {number})" in result.message
    assert not (tmp_path / "best").exists()
    assert json.loads((tmp_path / "result.json").read_text())["exit_code"] == 4


def test_a_limit_without_a_sensor_cannot_be_measured(project: Project, task: CheckedTask, tmp_path: Path) -> None:
    result = run(replace(project, budget=Budget.parse({"energy": "12mJ"})), task=task, run_dir=tmp_path)
    assert result.exit_code == 3
    assert result.trials == 1
    assert "no power sensor" in result.message


def test_an_unreachable_host_is_an_error_and_the_folder_can_be_used(
    project: Project, task: CheckedTask, tmp_path: Path
) -> None:
    device = replace(project.device, target="ssh://nobody@127.0.0.1:1")
    with pytest.raises(TargetError, match=r"127\.0\.0\.1") as caught:
        run(replace(project, device=device), task=task, run_dir=tmp_path)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_budget_without_a_limit_for_the_device_is_refused(project: Project) -> None:
    accuracy = Budget.parse({"accuracy": {"min": "90%"}})
    with pytest.raises(UsageError, match="limits nothing that the device measures") as caught:
        effective_budget(replace(project, budget=accuracy), DeviceProfile("board"))
    assert "latency: {p50: 60% of dense}" in str(caught.value.hint)
    profile = DeviceProfile("board", budget=Budget.parse({"size": "4MB", "accuracy": {"min": "95%"}}))
    assert effective_budget(replace(project, budget=accuracy), profile).to_json() == {
        "size": "4MB",
        "accuracy": {"min": "90%"},
    }


def test_run_folders_are_new(tmp_path: Path) -> None:
    folders = [new_run_dir(tmp_path / "runs") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() for folder in folders)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the folder"):
        new_run_dir(tmp_path / "file")


CHILD = """
import sys
from pathlib import Path
from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.records.project import load_project

project = load_project(sys.argv[1])
run(project, task=load_task(project.task, project.folder), run_dir=Path(sys.argv[2]), resume=True)
"""


def test_a_run_killed_in_its_trials_ends_as_if_it_was_not(
    finished: tuple[Path, Result], project: Project, tmp_path: Path
) -> None:
    def child() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CHILD, str(project.path), str(tmp_path / "run")])

    draw = random.Random(3)
    trials = tmp_path / "run" / "trials"
    for killed in range(4):
        with child() as process:
            # Kill while this trial is under way, or just after it.
            deadline = time.monotonic() + 250
            while not (trials / f"{killed:04d}" / "candidate.json").exists() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 2.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
    with child() as process:
        assert process.wait() == 0
    smooth = finished[1]
    result = codec.from_json(json.loads((tmp_path / "run" / "result.json").read_text()))
    assert isinstance(result, Result)
    assert result.best is not None
    assert smooth.best is not None
    assert result.best.candidate == smooth.best.candidate
    assert result.best.number == smooth.best.number
    assert result.best.figures["accuracy"] == smooth.best.figures["accuracy"]
    assert [(t.number, t.candidate.id, t.stage) for t in read_trials(tmp_path / "run")] == [
        (t.number, t.candidate.id, t.stage) for t in read_trials(finished[0])
    ]
    for name in ("model.onnx", "model.onnx.manifest.json", "candidate.json"):
        assert (tmp_path / "run/best" / name).read_bytes() == (finished[0] / "best" / name).read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False, text=True)
    if mounted.returncode != 0:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"cannot mount a small tmpfs: {mounted.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_and_nothing_is_lost(
    finished: tuple[Path, Result], project: Project, task: CheckedTask, small_disk: Path
) -> None:
    with pytest.raises(StorageError) as caught:
        run(project, task=task, run_dir=small_disk / "run")
    assert caught.value.exit_code == 3
    assert str(small_disk) in caught.value.message
    trials = read_trials(small_disk / "run")
    assert 0 < len(trials) < finished[1].trials
    assert not list((small_disk / "run").rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    result = run(project, task=task, run_dir=small_disk / "run", resume=True)
    assert result.status == "accepted"
    assert result.best is not None
    assert finished[1].best is not None
    assert result.best.candidate == finished[1].best.candidate
    assert read_trials(small_disk / "run")[: len(trials)] == trials
