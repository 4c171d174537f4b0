"""Jobs under way: a thread for each worker, which does a job again when its worker died."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from edgeprune.errors import WorkerError
from edgeprune.pipeline.building import Built
from edgeprune.pipeline.executors import work
from edgeprune.pipeline.executors.base import OnLost
from edgeprune.progress import Progress
from edgeprune.records.trial import Job

__all__ = ["ATTEMPTS", "Ahead", "Lost"]

ATTEMPTS = 3


class Lost(Exception):  # noqa: N818  what became of a worker
    """A worker is gone, and with it the job that it was doing."""


class Ahead:
    """Runs `attempt`, which gives a reply or raises Lost, for many jobs at once; replies are taken in any order."""

    def __init__(
        self,
        attempt: Callable[[Job, Path], str],
        workers: int,
        format: str,  # noqa: A002
        on_lost: OnLost,
        progress: Progress,
    ) -> None:
        self._attempt = attempt
        self._format = format
        self._on_lost = on_lost
        self._progress = progress
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="edgeprune-build")
        self._jobs: dict[Job, tuple[Future[tuple[str | None, list[str]]], Path]] = {}
        self._closing = False

    def submit(self, jobs: Sequence[tuple[Job, Path]]) -> None:
        """As Executor.submit."""
        for job, folder in jobs:
            self._jobs[job] = self._threads.submit(self._until_done, job, folder), folder

    def built(self, job: Job) -> Built:
        """As Executor.built."""
        future, folder = self._jobs[job]
        with self._progress.step(f"building trial {job.number}"):
            reply, lost = future.result()
        del self._jobs[job]
        for message in lost:
            self._on_lost(job.number, message)
        if reply is None:
            raise WorkerError(
                f"trial {job.number}: its worker died {len(lost)} times: {lost[-1]}",
                hint="out of memory? Use fewer workers; then go on with --resume",
            )
        return work.result(reply, folder, self._format, self._progress)

    def close(self, end_workers: Callable[[], None]) -> None:
        """Begin nothing more, end the workers, and wait until all threads saw it."""
        self._closing = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        end_workers()
        self._threads.shutdown()
        for _, folder in self._jobs.values():
            work.sweep(folder)
        self._jobs.clear()

    def _until_done(self, job: Job, folder: Path) -> tuple[str | None, list[str]]:
        lost: list[str] = []
        while not self._closing and len(lost) < ATTEMPTS:
            try:
                return self._attempt(job, folder), lost
            except Lost as error:  # noqa: PERF203  an attempt takes minutes
                lost.append(str(error))
        return None, lost
