from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edgeprune.pipeline.executors.base import Executor, OnLost, Plan
from edgeprune.pipeline.executors.local import LocalExecutor
from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.progress import SILENT
from edgeprune.records.project import ExecutorSettings, Project, load_project
from edgeprune.testing.executors import ExecutorContract
from tests.pipeline.executors.tiny_project import assert_same_trials, wait_until, write_project


class TestContract(ExecutorContract):
    def executor(self, plan: Plan, on_lost: OnLost) -> Executor:
        return LocalExecutor(plan, ExecutorSettings(workers=2), on_lost, SILENT)


def test_a_run_with_workers_that_was_interrupted_comes_to_the_trials_of_one(
    alone: tuple[Project, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, folder = tmp_path / "project", tmp_path / "run"
    write_project(project, "executor: {workers: 2}\n")
    temp = tmp_path / "tmp"
    temp.mkdir()
    (project / "hold").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeprune", "run", str(project), "--run-dir", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "EDGEPRUNE_LOCK": str(tmp_path / "lock"), "TMPDIR": str(temp)},
    )  # fmt: skip
    try:
        wait_until(lambda: (project / "held").exists() or process.poll() is not None)
        workers = [child for child in psutil.Process(process.pid).children() if _is_worker(child)]
        assert len(workers) == 2
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "resume with:" in err
    assert not [worker for worker in workers if worker.is_running()]
    assert not [path for path in temp.iterdir() if "edgeprune" in path.name]
    (project / "hold").unlink()
    # The number of workers is no input: three go on with what two began.
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    again = replace(load_project(project / "edgeprune.yaml"), executor=ExecutorSettings(workers=3))
    assert run(again, task=load_task(again.task, again.folder), run_dir=folder, resume=True).status == "accepted"
    assert_same_trials(alone[1], folder)


# A driver that started another process, which holds its pipes open and outlives it.
DRIVER = """
import os, sys, time
from pathlib import Path
from edgeprune.pipeline.executors.base import Plan
from edgeprune.pipeline.executors.local import LocalExecutor
from edgeprune.progress import SILENT
from edgeprune.records.candidate import Candidate
from edgeprune.records.project import ExecutorSettings
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Job, Stage

here = Path(sys.argv[1])
plan = Plan("task.py:Task", str(here), {}, "", FineTuneSettings(), "onnx", 0, 1)
with LocalExecutor(plan, ExecutorSettings(workers=2), print, SILENT) as executor:
    executor.submit([(Job(n, Stage.SCREEN, Candidate({"0": (n,)})), here / str(n)) for n in (1, 2)])
    while len(list(here.glob("pid-*"))) < 2:
        time.sleep(0.05)
    if os.fork() == 0:
        (here / "other").write_text(str(os.getpid()))
        time.sleep(600)
    time.sleep(600)
"""


def test_workers_die_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import os, time; from pathlib import Path\n"
        "(Path(__file__).parent / f'pid-{os.getpid()}').touch(); time.sleep(600)\n"
    )
    temp = tmp_path / "tmp"
    temp.mkdir()
    (temp / "keep").touch()
    other = tmp_path / "other"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        env={**os.environ, "TMPDIR": str(temp), "TEMP": str(temp)},
        start_new_session=True,
    )
    try:
        wait_until(lambda: (other.exists() and other.read_text()) or driver.poll() is not None)
        workers = [psutil.Process(int(path.name[4:])) for path in tmp_path.glob("pid-*")]
        assert len(workers) == 2
        driver.kill()
        driver.wait()
        wait_until(lambda: not [worker for worker in workers if worker.is_running()])
        assert psutil.pid_exists(int(other.read_text()))
        assert list(temp.iterdir()) == [temp / "keep"]
    finally:
        os.killpg(driver.pid, signal.SIGKILL)


def _is_worker(process: psutil.Process) -> bool:
    return "edgeprune.pipeline.executors.worker" in process.cmdline()
