from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeprune.errors import StorageError, TargetError, UsageError
from edgeprune.pipeline.executors.base import Executor, OnLost, Plan
from edgeprune.pipeline.executors.ray import RayExecutor, write_files
from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.progress import SILENT
from edgeprune.records.project import ExecutorSettings, load_project
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.search.journal import read_trials
from edgeprune.targets.ray import RayTarget
from edgeprune.testing.executors import ExecutorContract
from tests.pipeline.small_project import PROJECT, TASK, write_project

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
pytest.importorskip("ray")

from ray.cluster_utils import Cluster

_STORE = 80 * 2**20
WAIT_S = 120.0

# Held by a file, so that the node can be killed in the middle of a trial.
HELD = TASK.replace(
    "    def evaluate(self, model):\n",
    """    def evaluate(self, model):
        hold = Path(__file__).parent / "hold"
        if "RAY_RAYLET_PID" in os.environ and hold.exists():
            import time
            (hold.parent / "held").write_text(f"{os.environ['RAY_RAYLET_PID']} {os.getpid()}")
            time.sleep(600)
""",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no work, a node on which a camera hangs, and two that build."""
    before = {process.pid for process in psutil.process_iter()}
    health = {"initial_delay_ms": 0, "period_ms": 500, "timeout_ms": 5000, "failure_threshold": 3}
    head = {
        "num_cpus": 0,
        "object_store_memory": _STORE,
        "include_dashboard": False,
        "_system_config": {f"health_check_{name}": value for name, value in health.items()},
    }
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=0, object_store_memory=_STORE, resources={"device:camera": 1})
    for _ in range(2):
        nodes.add_node(num_cpus=1, object_store_memory=_STORE)
    yield nodes
    nodes.shutdown()
    deadline = time.monotonic() + WAIT_S
    while left := [p for p in psutil.process_iter(["name", "cmdline"]) if p.pid not in before and _of_ray(p)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def _of_ray(process: psutil.Process) -> bool:
    return any("ray::" in part or "/ray/" in part for part in process.info["cmdline"] or ())


@pytest.fixture
def settings(cluster: Any) -> ExecutorSettings:
    return ExecutorSettings("ray", workers=2, address=cluster.address)


class TestContract(ExecutorContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, settings: ExecutorSettings) -> None:
        self.settings = settings

    def executor(self, plan: Plan, on_lost: OnLost) -> Executor:
        return RayExecutor(plan, self.settings, on_lost, SILENT)


def test_a_device_is_held_by_one_run_at_a_time(cluster: Any) -> None:
    with RayTarget("camera", cluster.address, "local") as target:
        status, output = target.run([target.python, "-c", "import os; print(os.getcwd())"], 60.0)
        assert (status, output.decode().strip()) == (0, target.folder)
        other = RayTarget("camera", cluster.address, "local", wait_s=-29.0)
        with pytest.raises(TargetError, match="no answer from its node") as caught, other:
            pass
        assert caught.value.outcome == "BUSY"
        folder = Path(target.folder)
        assert folder.is_dir()
        with pytest.raises(TargetError, match="no node of the cluster has 'device:radio'"):
            RayTarget("radio", cluster.address, "local").__enter__()
    assert not folder.exists()


def test_a_run_survives_the_death_of_a_node(
    cluster: Any, settings: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "device.lock"))
    text = PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16").replace("epochs: 2", "epochs: 1")
    project = load_project(write_project(tmp_path / "project", text))
    (project.folder / "task.py").write_text(HELD)
    task = load_task(project.task, project.folder)
    alone = run(project, task=task, run_dir=tmp_path / "alone")
    assert alone.status == "accepted"
    hold = project.folder / "hold"
    hold.touch()

    def kill_the_node() -> None:
        deadline = time.monotonic() + WAIT_S
        while not (held := project.folder / "held").exists() or not held.read_text():
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        hold.unlink()
        for pid in held.read_text().split():  # a node that loses power: its raylet and what it was at
            os.kill(int(pid), signal.SIGKILL)

    killer = threading.Thread(target=kill_the_node)
    killer.start()
    spread = replace(project, executor=replace(settings, device="camera"))
    result = run(spread, task=task, run_dir=tmp_path / "spread")
    killer.join()
    assert not hold.exists()
    assert result.status == "accepted"
    assert result.provenance["measured_on"]["target"] == "local at camera"
    for one, other in zip(read_trials(tmp_path / "alone"), read_trials(tmp_path / "spread"), strict=True):
        assert (one.number, one.stage, one.candidate) == (other.number, other.stage, other.candidate)
        assert one.figures["accuracy"] == other.figures["accuracy"]
        assert one.figures.get("size") == other.figures.get("size")
    lines = [json.loads(line) for line in (tmp_path / "spread/journal.jsonl").read_text().splitlines()]
    attempts = [line for line in lines if line["kind"] == "attempt"]
    assert [line["outcome"] for line in attempts if line["outcome"] == "WORKER_DIED"]
    assert not list((tmp_path / "spread").rglob(".*"))


def test_no_cluster_is_said() -> None:
    executor = RayExecutor(
        Plan("t.py:T", ".", {}, "", FineTuneSettings(), "onnx", 0, 1),
        ExecutorSettings("ray", address="127.0.0.1:1"),
        lambda *_: None,
        SILENT,
    )
    with pytest.raises(UsageError, match=r"no Ray cluster at '127\.0\.0\.1:1'") as caught:
        executor.__enter__()
    assert "ray start --head" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "", "a\n", "a\0b"])
def test_what_a_node_sends_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not allowed"):
        write_files(tmp_path / "trial", {"good.json": b"{}", name: b"x"})
    assert list(tmp_path.iterdir()) == []
