"""Workers on this machine: processes of their own, started afresh, that speak JSON lines."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from edgeprune.pipeline.building import Built
from edgeprune.pipeline.executors import work
from edgeprune.pipeline.executors.ahead import Ahead, Lost
from edgeprune.pipeline.executors.base import OnLost, Plan
from edgeprune.pipeline.executors.worker import TEMP_PREFIX
from edgeprune.progress import Progress
from edgeprune.records.project import ExecutorSettings
from edgeprune.records.trial import Job

__all__ = ["LocalExecutor"]

_LOOK_S = 1.0
_COMMAND = [sys.executable, "-m", "edgeprune.pipeline.executors.worker"]


class LocalExecutor:
    """A pool of processes, each started when it is first needed and replaced when it dies."""

    def __init__(self, plan: Plan, settings: ExecutorSettings, on_lost: OnLost, progress: Progress) -> None:
        self._plan = plan
        self._ahead = Ahead(self._attempt, settings.workers, plan.format, on_lost, progress)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False
        self._temp: Path | None = None

    def __enter__(self) -> LocalExecutor:
        self._temp = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.close(self._end_workers)
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)

    def submit(self, jobs: Sequence[tuple[Job, Path]]) -> None:
        """As Executor.submit."""
        self._ahead.submit(jobs)

    def built(self, job: Job) -> Built:
        """As Executor.built."""
        return self._ahead.built(job)

    def _attempt(self, job: Job, folder: Path) -> str:
        worker = self._take()
        try:
            reply = worker.ask(work.job_text(job), str(folder))
        except Lost:
            worker.end()
            with self._lock:
                self._all.discard(worker)
            raise
        with self._lock:
            self._idle.append(worker)
        return reply

    def _take(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise Lost("the run ended")
            if self._idle:
                return self._idle.pop()
            worker = _Worker(self._plan, str(self._temp))
            self._all.add(worker)
            return worker

    def _end_workers(self) -> None:
        with self._lock:
            self._closed = True
            workers, self._all = self._all, set()
        for worker in workers:
            worker.end()


class _Worker:
    """One process. In a session of its own: Ctrl-C reaches the driver alone, which ends all that the task started."""

    def __init__(self, plan: Plan, temp: str) -> None:
        threads = str(plan.threads)
        environment = {
            **os.environ,
            "TMPDIR": temp,  # what a killed worker leaves there goes with the executor
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "PYTHONSAFEPATH": "1",  # a torch.py in the working folder is not torch
        }
        self._plan = plan.to_text()
        self._process = subprocess.Popen(
            [*_COMMAND, temp],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def ask(self, *parts: str) -> str:
        """The reply; raises Lost."""
        if self._process.stdin is None or self._process.stdout is None:
            raise Lost("its worker has no pipes")
        reply = b""
        with suppress(OSError, ValueError):  # of a closed pipe: no reply is what tells
            self._process.stdin.write(b"".join(part.encode() + b"\n" for part in (self._plan, *parts)))
            self._process.stdin.flush()
            reply = self._read(self._process.stdout.fileno())
        if not reply.endswith(b"\n"):
            raise Lost(self._how_it_ended())
        return reply.decode()

    def _read(self, output: int) -> bytes:
        """One line, or less when the process ended: what it started may hold the pipe open for longer."""
        poll = select.poll()
        poll.register(output, select.POLLIN)
        reply = b""
        while not reply.endswith(b"\n"):
            ended = self._process.poll() is not None
            if poll.poll(0 if ended else _LOOK_S * 1000):
                part = os.read(output, 1 << 16)
                reply += part
                if part:
                    continue
                break
            if ended:
                break
        return reply

    def end(self) -> None:
        """Kill it and whatever it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(timeout=10)
            if status < 0:
                return f"its worker was ended by {signal.Signals(-status).name}"
            return f"its worker ended with status {status}"
        return "its worker closed its output"
