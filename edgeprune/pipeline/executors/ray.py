"""Workers of a Ray cluster: building jobs take CPUs and GPUs of its nodes (measuring: edgeprune/targets/ray.py).

Nothing is asked of the nodes but edgeprune, and the project at the same path: a trial is built in a temporary folder,
whose files come back as bytes. Ray itself pickles what it passes: the cluster is trusted as this machine is.

A task says first on which node it runs. Ray gives a task up when its worker dies, but not when only the worker's raylet
does; so who waits looks at the node as well.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune import atomic
from edgeprune.errors import StorageError, WorkerError
from edgeprune.pipeline.building import Built
from edgeprune.pipeline.executors import work
from edgeprune.pipeline.executors.ahead import Ahead, Lost
from edgeprune.pipeline.executors.base import OnLost, Plan
from edgeprune.progress import Progress
from edgeprune.records.project import ExecutorSettings
from edgeprune.records.trial import Job
from edgeprune.targets.ray import Cluster, ray_module

__all__ = ["RayExecutor", "write_files"]

_END_S = 10.0
_LOOK_S = 2.0  # between looks at the nodes
_PLACE_S = 60.0  # for a node that can take the job to join
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class RayExecutor:
    """Builds trials in tasks of a Ray cluster, `workers` at a time."""

    def __init__(self, plan: Plan, settings: ExecutorSettings, on_lost: OnLost, progress: Progress) -> None:
        self._plan = plan.to_text()
        self._settings = settings
        self._cluster = Cluster(settings.address)
        self._ahead = Ahead(self._attempt, settings.workers, plan.format, on_lost, progress)
        self._lock = threading.Lock()
        self._running: set[Any] = set()
        self._closed = False
        self._task: Any = None

    def __enter__(self) -> RayExecutor:
        ray = self._cluster.__enter__()
        # Ray's own retries would not be told of; a fresh process each time would import torch again.
        options = {"num_cpus": self._settings.cpus, "num_gpus": self._settings.gpus, "num_returns": "streaming"}
        self._task = ray.remote(max_retries=0, **options)(_task)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ahead.close(self._end_tasks)
        finally:
            self._cluster.__exit__(kind, error, trace)

    def submit(self, jobs: Sequence[tuple[Job, Path]]) -> None:
        """As Executor.submit."""
        self._ahead.submit(jobs)

    def built(self, job: Job) -> Built:
        """As Executor.built."""
        return self._ahead.built(job)

    def _attempt(self, job: Job, folder: Path) -> str:
        ray = ray_module()
        with self._lock:
            if self._closed:
                raise Lost("the run ended")
            stream = self._task.remote(self._plan, work.job_text(job))
            self._running.add(stream)
        try:
            node = self._next(stream, None)
            reply, files = self._next(stream, node)
        except ray.exceptions.RayTaskError:
            raise  # a bug, or a node without edgeprune: another node would not help
        except ray.exceptions.RayError as error:
            raise Lost(f"its worker is gone: {type(error).__name__}") from error
        finally:
            with self._lock:
                self._running.discard(stream)
        write_files(folder, files)
        return str(reply)

    def _next(self, stream: Any, node: str | None) -> Any:
        """What the task says next; raises Lost once its node is dead, WorkerError while no node can take it."""
        ray = ray_module()
        late = time.monotonic() + _PLACE_S
        reference: Any = None
        while True:
            # An item first exists, perhaps far away, and then is brought here.
            ready, _ = ray.wait([stream if reference is None else reference], timeout=_LOOK_S)
            if self._closed:
                raise Lost("the run ended")
            if ready and reference is not None:
                return ray.get(reference, timeout=_LOOK_S)
            if ready:
                reference = next(stream)
                continue
            alive = {each["NodeID"]: each["Resources"] for each in ray.nodes() if each["Alive"]}
            if node is not None and node not in alive:
                with suppress(ray.exceptions.RayError):
                    ray.cancel(stream, force=True)
                raise Lost("its node is dead")
            if node is not None or any(self._fits(resources) for resources in alive.values()):
                late = time.monotonic() + _PLACE_S
            elif time.monotonic() > late:
                raise WorkerError(
                    f"no node of the Ray cluster has {self._settings.cpus} CPUs and {self._settings.gpus:g} GPUs",
                    hint="ask for less (executor: {cpus: 1, gpus: 0}), or join a larger node: ray start --address=...",
                )

    def _fits(self, resources: Mapping[str, float]) -> bool:
        return resources.get("CPU", 0) >= self._settings.cpus and resources.get("GPU", 0) >= self._settings.gpus

    def _end_tasks(self) -> None:
        ray = ray_module()
        with self._lock:
            self._closed = True
            running = list(self._running)
        for stream in running:  # a generator heeds nothing gentler; the folder it leaves goes with the next job there
            with suppress(ray.exceptions.RayError):
                ray.cancel(stream, force=True)
        if running:
            ray.wait([stream.completed() for stream in running], num_returns=len(running), timeout=_END_S)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what a node sent, each file whole; a name that is more than a name is refused with StorageError."""
    for name in files:
        if not _NAME.fullmatch(name):
            raise StorageError(f"a node sent a file under a name that is not allowed: {name!r}")
    for name, data in files.items():
        atomic.write_bytes(folder / name, data)


def _task(plan: str, job: str) -> Iterator[str | tuple[str, dict[str, bytes]]]:
    """Runs on a node: says on which, then what came of the job."""
    yield str(ray_module().get_runtime_context().get_node_id())
    yield _build(plan, job)


def _build(plan: str, job: str) -> tuple[str, dict[str, bytes]]:
    prefix = "edgeprune-trial-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):  # by a worker that was killed
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-") as folder:
        reply = work.work(plan, job, Path(folder))
        return reply, {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
