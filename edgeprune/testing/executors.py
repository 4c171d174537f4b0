"""The contract of executors, as tests. Run it on your own:

    from edgeprune.testing.executors import ExecutorContract

    class TestMine(ExecutorContract):
        def executor(self, plan, on_lost):
            return MyExecutor(plan, ExecutorSettings("mine", workers=2), on_lost, SILENT)

The built-in executors are held to the same.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeprune.errors import TaskError, WorkerError
from edgeprune.graph.capture import capture
from edgeprune.pipeline import baseline
from edgeprune.pipeline.building import CHECKPOINT, Builder, Built
from edgeprune.pipeline.executors.base import Executor, OnLost, Plan
from edgeprune.pipeline.task import load_task
from edgeprune.records.candidate import Candidate
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Job, Stage

__all__ = ["ExecutorContract"]

_TASK = '''
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


class Task:
    """What its processes do is ruled by files: fail-16, die-16, sleep-16, where 16 is the width that is left."""

    def model(self):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))

    def example_inputs(self):
        return (torch.linspace(-1, 1, 24).reshape(4, 6),)

    def train_batches(self):
        for _ in range(3):
            x = torch.randn(16, 6)
            yield x, (x.sum(1) > 0).long()

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model):
        width = min(len(p) for n, p in model.named_parameters() if len(p) > 3)
        print("a task may print")
        if (HERE / f"fail-{width}").exists():
            raise ValueError(f"width {width} is not wanted")
        if (HERE / f"sleep-{width}").exists():
            (HERE / f"sleeping-{width}").write_text(str(os.getpid()))
            time.sleep(600)
        die = HERE / f"die-{width}"
        if die.exists():
            left = int(die.read_text())
            if left > 0:
                die.write_text(str(left - 1))
                os.kill(os.getpid(), signal.SIGKILL)
        with torch.no_grad():
            x = torch.randn(64, 6)
            return (model(x).argmax(1) == (x.sum(1) > 0).long()).float().mean().item()
'''


class ExecutorContract:
    """What a run relies on. `executor` makes one that builds several trials at once, on one thread each."""

    wait_s = 120.0

    def executor(self, plan: Plan, on_lost: OnLost) -> Executor:
        """A new executor, not yet entered."""
        raise NotImplementedError

    def test_is_an_executor(self, tmp_path: Path) -> None:
        assert isinstance(self.executor(_plan(tmp_path), _never_lost), Executor)

    def test_builds_what_the_driver_would_build_and_replaces_the_dead(self, tmp_path: Path) -> None:
        plan, lost = _plan(tmp_path), list[tuple[int, str]]()
        jobs = [_job(1, 8, Stage.SCREEN), _job(2, 16, Stage.SCREEN), _job(3, 12, Stage.FINAL)]
        expected = _here(plan, jobs, tmp_path / "here")
        (tmp_path / "die-16").write_text("1")
        with self.executor(plan, lambda number, message: lost.append((number, message))) as executor:
            executor.submit([(job, tmp_path / "there" / str(job.number)) for job in jobs])
            found = {job.number: executor.built(job) for job in reversed(jobs)}
        for job, built in zip(jobs, expected, strict=True):
            now = found[job.number]
            assert (now.accuracy, now.details) == (built.accuracy, built.details)
            assert now.seconds > 0
            folder = tmp_path / "there" / str(job.number)
            assert (now.artifact is None) == (built.artifact is None)
            assert now.artifact is None or now.artifact.path.parent == folder
            assert now.artifact is None or replace(now.artifact, path=Path()) == replace(
                built.artifact or now.artifact, path=Path()
            )
            assert _contents(folder) == _contents(tmp_path / "here" / str(job.number))
        assert [number for number, _ in lost] == [2]

    def test_what_the_task_raises_is_raised_here(self, tmp_path: Path) -> None:
        plan, job, after = _plan(tmp_path), _job(1, 8, Stage.SCREEN), _job(2, 12, Stage.SCREEN)
        (tmp_path / "fail-8").touch()
        (tmp_path / "die-16").write_text("99")
        with self.executor(plan, lambda *_: None) as executor:
            fatal = _job(3, 16, Stage.SCREEN)
            executor.submit([(one, tmp_path / "t" / str(one.number)) for one in (job, after, fatal)])
            with pytest.raises(TaskError, match=r"evaluate\(\).* ValueError: width 8 is not wanted\n  at .*task\.py:"):
                executor.built(job)
            assert 0 <= executor.built(after).accuracy <= 1
            with pytest.raises(WorkerError, match="trial 3: its worker died 3 times"):
                executor.built(fatal)

    def test_other_weights_are_refused(self, tmp_path: Path) -> None:
        plan, job = replace(_plan(tmp_path), model="0" * 64), _job(1, 8, Stage.SCREEN)
        with self.executor(plan, _never_lost) as executor:
            executor.submit([(job, tmp_path / "t")])
            with pytest.raises(TaskError, match=r"model\(\) of task\.py:Task gives other weights in a worker"):
                executor.built(job)

    def test_leaving_ends_what_is_under_way(self, tmp_path: Path) -> None:
        plan, jobs = _plan(tmp_path), [_job(1, 8, Stage.FINAL), _job(2, 12, Stage.SCREEN), _job(3, 16, Stage.SCREEN)]
        for width in (8, 12):
            (tmp_path / f"sleep-{width}").touch()
        with self.executor(plan, _never_lost) as executor:
            executor.submit([(job, tmp_path / "t" / str(job.number)) for job in jobs])
            pids = [int(_wait_for(tmp_path / f"sleeping-{width}", self.wait_s)) for width in (8, 12)]
        deadline = time.monotonic() + self.wait_s
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline, "a worker is left"
            time.sleep(0.05)
        assert not [path for path in (tmp_path / "t").rglob(".*") if path.is_file()]


def _never_lost(number: int, message: str) -> None:
    raise AssertionError(f"trial {number}: {message}")


def _plan(folder: Path) -> Plan:
    (folder / "task.py").write_text(_TASK)
    task = load_task("task.py:Task", folder)
    settings = FineTuneSettings(epochs=2)
    return Plan(
        "task.py:Task",
        str(folder),
        task.sources,
        baseline.fingerprint(task.model()),
        settings,
        "onnx",
        seed=5,
        threads=1,
    )


def _job(number: int, width: int, stage: Stage) -> Job:
    return Job(number, stage, Candidate({"0": tuple(range(width))}))


def _here(plan: Plan, jobs: Sequence[Job], folder: Path) -> list[Built]:
    with _one_thread():
        task = load_task(plan.task, plan.folder)
        captured = capture(task.model().eval(), task.example_inputs())
        builder = Builder(captured, task, plan.recovery, plan.format, plan.seed)
        return [builder.build(job.candidate, job.stage, folder / str(job.number)) for job in jobs]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _contents(folder: Path) -> dict[str, str]:
    """By name the SHA-256 of the files that a trial keeps; of a .pt2 its weights: torch writes addresses into it."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name == CHECKPOINT:  # tells the seconds
            continue
        data = path.read_bytes()
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                data = b"".join(archive.read(name) for name in sorted(archive.namelist()) if "/weights/" in name)
        found[path.name] = hashlib.sha256(data).hexdigest()
    return found


def _wait_for(path: Path, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.05)
    return path.read_text()
