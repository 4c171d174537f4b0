"""Workers of a Ray cluster: building jobs take CPUs and GPUs of its nodes (measuring: edgeprune/targets/ray.py).

Nothing is asked of the nodes but edgeprune, and the project at the same path: a trial is built in a temporary folder,
whose files come back as bytes. Ray itself pickles what it passes: the cluster is trusted as this machine is.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune import atomic
from edgeprune.errors import StorageError
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
        self._task = ray.remote(max_retries=0, num_cpus=self._settings.cpus, num_gpus=self._settings.gpus)(_build)
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
            reference = self._task.remote(self._plan, work.job_text(job))
            self._running.add(reference)
        try:
            reply, files = ray.get(reference)
        except ray.exceptions.RayTaskError:
            raise  # a bug, or a node without edgeprune: another node would not help
        except ray.exceptions.RayError as error:
            raise Lost(f"its worker is gone: {type(error).__name__}") from error
        finally:
            with self._lock:
                self._running.discard(reference)
        write_files(folder, files)
        return str(reply)

    def _end_tasks(self) -> None:
        ray = ray_module()
        with self._lock:
            self._closed = True
            running = list(self._running)
        for force in (False, True):  # the gentle way leaves no folder on the node
            for reference in running:
                with suppress(ray.exceptions.RayError):
                    ray.cancel(reference, force=force)
            _, running = ray.wait(running, num_returns=len(running), timeout=_END_S) if running else ([], [])


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what a node sent, each file whole; a name that is more than a name is refused with StorageError."""
    for name in files:
        if not _NAME.fullmatch(name):
            raise StorageError(f"a node sent a file under a name that is not allowed: {name!r}")
    for name, data in files.items():
        atomic.write_bytes(folder / name, data)


def _build(plan: str, job: str) -> tuple[str, dict[str, bytes]]:
    """Runs on a node."""
    prefix = "edgeprune-trial-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):  # by a worker that was killed
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-") as folder:
        reply = work.work(plan, job, Path(folder))
        return reply, {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
