"""The beginning of a run, `run.json`, and what to say of a run that has no result yet.

The process that works in the folder holds `run.json` locked from its first moment, before there is a journal; who looks
on reads both. A lock ends with its process, so that what is left of a killed run is never taken for one that goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeprune.errors import StorageError, UsageError
from edgeprune.search.journal import FILE_NAME as JOURNAL

__all__ = ["RUN", "begun", "holder", "is_run", "resuming", "told", "unfinished", "working"]

RUN = "run.json"
RUN_SCHEMA = "edgeprune.run/1"
RESULT = "result.json"


@contextmanager
def begun(run_dir: Path, *, max_trials: int, project: Path | None = None) -> Iterator[Callable[..., None]]:
    """Hold the folder for a run, and write down when it began; gives `note(now=..., trials=...)` for what comes next.

    `now` says what is being done before the journal is there; `trials` are those that it has once it is open. A start
    that did not get so far leaves what was there before. Raises UsageError where another works there, StorageError.
    """
    path = run_dir / RUN
    made = not run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    opened = False
    data: dict[str, Any] = {
        "schema": RUN_SCHEMA,
        "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "pid": os.getpid(),
        "project": None if project is None else str(project),
        "max_trials": max_trials,
    }

    def note(*, now: str = "", trials: int | None = None) -> None:
        nonlocal opened
        opened = opened or trials is not None
        data["now"] = now
        if trials is not None:
            data["trials_before"] = trials
        _write(descriptor, json.dumps(data).encode() + b"\n", path)

    try:
        _take(descriptor, run_dir)
        times = path.stat()
        before = path.read_bytes()
        try:
            note(now="beginning")
            yield note
        finally:
            if not opened and not before:
                path.unlink(missing_ok=True)
            elif not opened:
                _write(descriptor, before, path)
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            if made:
                with suppress(OSError):  # it is kept where anything is in it
                    run_dir.rmdir()
    finally:
        os.close(descriptor)


def told(run_dir: Path) -> dict[str, Any]:
    """What `run.json` says; empty where there is none, or it is just being written."""
    try:
        data = json.loads((run_dir / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def is_run(run_dir: Path) -> bool:
    """Whether a run was ever begun there, however far it came."""
    return (run_dir / JOURNAL).exists() or (run_dir / RUN).exists()


def holder(path: Path) -> int | None:
    """The process that holds the file locked; 0 where one does that cannot be named, None where none does.

    The list of locks is asked first: to try the lock would, for an instant, keep a run from beginning. StorageError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        known = _lock_owner(os.fstat(descriptor))
        if known is not None:
            return known
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
    finally:
        os.close(descriptor)
    return None


def working(run_dir: Path) -> int | None:
    """The process that works in a run's folder; 0 and None as for `holder`."""
    held = [holder(run_dir / name) for name in (JOURNAL, RUN)]
    return max((pid for pid in held if pid is not None), default=None)


def resuming(run_dir: Path) -> str:
    """The command that goes on with a run, its project named where it is known."""
    project = told(run_dir).get("project")
    named = shlex.quote(project) if isinstance(project, str) else "PROJECT"
    return f"edgeprune run {named} --resume --run-dir {shlex.quote(str(run_dir))}"


def unfinished(run_dir: Path) -> UsageError | None:
    """What to raise where a run's result is asked for before it has one; None where it has one, or there is no run."""
    if (run_dir / RESULT).exists() or not is_run(run_dir):
        return None
    pid = working(run_dir)
    if pid is not None:
        process = f" (process {pid})" if pid else ""
        return UsageError(
            f"the run in {run_dir} is still running{process}: it has no result yet",
            hint=f"look on: edgeprune watch {shlex.quote(str(run_dir))}",
        )
    return UsageError(
        f"there is no result in {run_dir}", hint=f"the run was not finished; go on with: {resuming(run_dir)}"
    )


def _take(descriptor: int, run_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"{run_dir}: another run is working in this folder",
            hint="wait until it is done, or choose another folder with --run-dir",
        ) from error


def _write(descriptor: int, content: bytes, path: Path) -> None:
    """Put the content in place of what the file holds: it stays the file that is locked."""
    try:
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def _lock_owner(file: os.stat_result) -> int | None:
    """Who holds an exclusive flock on the file, by /proc/locks: "1: FLOCK ADVISORY WRITE pid device:inode 0 EOF"."""
    wanted = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        parts = line.split()
        if len(parts) >= 6 and parts[1] == "FLOCK" and parts[3] == "WRITE" and parts[5] == wanted and int(parts[4]) > 0:
            return int(parts[4])
    return None
