from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.pipeline.executors.base import Executor, OnLost, Plan
from edgeprune.pipeline.executors.local import LocalExecutor
from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.progress import SILENT
from edgeprune.records.project import ExecutorSettings, load_project
from edgeprune.search.journal import read_trials
from edgeprune.testing.executors import ExecutorContract
from tests.pipeline.small_project import PROJECT, write_project


class TestContract(ExecutorContract):
    def executor(self, plan: Plan, on_lost: OnLost) -> Executor:
        return LocalExecutor(plan, ExecutorSettings(workers=2), on_lost, SILENT)


def test_two_workers_come_to_the_trials_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "device.lock"))
    text = PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16").replace("epochs: 2", "epochs: 1")
    project = load_project(write_project(tmp_path / "project", text))
    task = load_task(project.task, project.folder)
    many = replace(project, executor=ExecutorSettings(workers=2))
    results = [run(one, task=task, run_dir=tmp_path / name) for name, one in (("one", project), ("two", many))]
    assert [result.status for result in results] == ["accepted", "accepted"]
    for one, other in zip(read_trials(tmp_path / "one"), read_trials(tmp_path / "two"), strict=True):
        assert (one.number, one.stage, one.candidate, one.details) == (
            other.number,
            other.stage,
            other.candidate,
            other.details,
        )
        assert [one.figures.get(name) for name in ("accuracy", "size")] == [
            other.figures.get(name) for name in ("accuracy", "size")
        ]
        if one.artifact is not None and other.artifact is not None:
            assert (tmp_path / "one" / one.artifact).read_bytes() == (tmp_path / "two" / other.artifact).read_bytes()
    # The number of workers is no input: either goes on with the other's run.
    assert run(project, task=task, run_dir=tmp_path / "two", resume=True).status == "accepted"
