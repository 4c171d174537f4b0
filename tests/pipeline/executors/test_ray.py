from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeprune.errors import StorageError, TargetError, WorkerError
from edgeprune.pipeline.executors import ray as executors_ray
from edgeprune.pipeline.executors.base import Executor, OnLost, Plan
from edgeprune.pipeline.executors.ray import RayExecutor, write_files
from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.progress import SILENT
from edgeprune.records.candidate import Candidate
from edgeprune.records.project import ExecutorSettings, Project, load_project
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Job, Stage
from edgeprune.targets.ray import Cluster, RayTarget
from edgeprune.testing.executors import ExecutorContract
from tests.pipeline.executors.tiny_project import assert_same_trials, attempts, wait_until, write_project

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
pytest.importorskip("ray")

from ray.cluster_utils import Cluster as Nodes

_NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
PLAN = Plan("t.py:T", ".", {}, "", FineTuneSettings(), "onnx", 0, 1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no work, a node on which a camera hangs, and two that build; all tests share one connection."""
    before = {process.pid for process in psutil.process_iter()}
    health = {"initial_delay_ms": 0, "period_ms": 500, "timeout_ms": 5000, "failure_threshold": 3}
    temp = tempfile.mkdtemp(prefix="ray-")  # short: so must be the paths of sockets
    head = {
        **_NODE,
        "num_cpus": 0,
        "include_dashboard": False,
        "_system_config": {f"health_check_{name}": value for name, value in health.items()},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", temp)  # where the nodes write
        patch.setenv("RAY_worker_niceness", "0")  # at Ray's 15 the tests beside these would starve the workers
        patch.setenv("EDGEPRUNE_LOCK", f"{temp}/device.lock")
        nodes = Nodes(initialize_head=True, head_node_args=head)
        nodes.add_node(**{**_NODE, "num_cpus": 0}, resources={"device:camera": 1})
        for _ in range(2):
            nodes.add_node(**_NODE)
        with Cluster(nodes.address):
            yield nodes
        nodes.shutdown()
    wait_until(lambda: not [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before and _of_ray(p)])
    shutil.rmtree(temp)


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


def test_a_run_goes_on_when_only_a_raylet_dies(
    alone: tuple[Project, Path],
    cluster: Any,
    settings: ExecutorSettings,
    tmp_path: Path,
) -> None:
    """The worker lives on, so that Ray itself goes on waiting for it."""
    project = load_project(write_project(tmp_path / "project"))
    hold, held = project.folder / "hold", project.folder / "held"
    hold.touch()
    workers: list[psutil.Process] = []

    def kill_a_raylet() -> None:
        wait_until(held.exists)
        hold.unlink()
        raylet, worker = map(int, held.read_text().split())
        workers.append(psutil.Process(worker))
        os.kill(raylet, signal.SIGKILL)

    killer = threading.Thread(target=kill_a_raylet)
    killer.start()
    spread = replace(project, executor=replace(settings, workers=1, device="camera"))
    result = run(spread, task=load_task(project.task, project.folder), run_dir=tmp_path / "spread")
    killer.join()
    assert workers[0].is_running()
    workers[0].kill()
    cluster.add_node(**_NODE)
    assert result.status == "accepted"
    assert result.provenance["measured_on"]["target"] == "local at camera"
    assert_same_trials(alone[1], tmp_path / "spread")
    assert attempts(tmp_path / "spread") == ["WORKER_DIED"]
    assert not list((tmp_path / "spread").rglob(".*"))


DRIVER = """
import sys, time
from pathlib import Path
from edgeprune.pipeline.executors.base import Plan
from edgeprune.pipeline.executors.ray import RayExecutor
from edgeprune.progress import SILENT
from edgeprune.records.candidate import Candidate
from edgeprune.records.project import ExecutorSettings
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Job, Stage

plan = Plan("task.py:Task", sys.argv[1], {}, "", FineTuneSettings(), "onnx", 0, 1)
with RayExecutor(plan, ExecutorSettings("ray", address=sys.argv[2]), print, SILENT) as executor:
    executor.submit([(Job(1, Stage.SCREEN, Candidate({"0": (1,)})), Path(sys.argv[1], "trial"))])
    time.sleep(600)
"""


def test_workers_die_with_a_driver_that_is_killed(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import os, time; from pathlib import Path\n"
        "(Path(__file__).parent / f'pid-{os.getpid()}').touch(); time.sleep(600)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), cluster.address], start_new_session=True)
    try:
        wait_until(lambda: list(tmp_path.glob("pid-*")) or driver.poll() is not None)
        (worker,) = [psutil.Process(int(path.name[4:])) for path in tmp_path.glob("pid-*")]
    finally:
        driver.kill()
        driver.wait()
    wait_until(lambda: not worker.is_running())


def test_what_no_node_can_take_is_said(settings: ExecutorSettings, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(executors_ray, "_PLACE_S", 0.0)
    job = Job(1, Stage.SCREEN, Candidate({"0": (1,)}))
    with RayExecutor(PLAN, replace(settings, cpus=64), lambda *_: None, SILENT) as executor:
        executor.submit([(job, tmp_path)])
        with pytest.raises(WorkerError, match="no node of the Ray cluster has 64 CPUs and 0 GPUs"):
            executor.built(job)


NO_CLUSTER = """
from edgeprune.errors import UsageError
from edgeprune.targets.ray import Cluster

for address in ("127.0.0.1:1", "ray://127.0.0.1:10001", "nonsense"):
    try:
        Cluster(address).__enter__()
    except UsageError as error:
        print(error.message, "|", error.hint)
"""


def test_no_cluster_is_said() -> None:
    """In a process of its own: one that is connected stays so."""
    said = subprocess.run([sys.executable, "-c", NO_CLUSTER], capture_output=True, text=True, timeout=60, check=True)
    lines = said.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"no Ray cluster at {address!r}" for address in ("127.0.0.1:1", "ray://127.0.0.1:10001", "nonsense")
    ]
    assert "refused" in lines[0]
    assert all("ray start --head" in line and "host:port" in line for line in lines[1:])


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "", "a\n", "a\0b"])
def test_what_a_node_sends_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not allowed"):
        write_files(tmp_path / "trial", {"good.json": b"{}", name: b"x"})
    assert list(tmp_path.iterdir()) == []
