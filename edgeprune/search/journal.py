"""The journal of a run: one JSON line per finished trial, on disk before anything builds on it.

The first line holds what the run was started with, so that nobody resumes it with something else. A line is
written with one fsync; what a kill leaves of a last line is dropped on opening, anything else that does not
read is an error with its line number. A lock (flock) keeps a second run out of the folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune.errors import DamagedError, StorageError, UsageError
from edgeprune.records import codec
from edgeprune.records.trial import Trial

__all__ = ["FILE_NAME", "SCHEMA", "Journal", "read_trials"]

SCHEMA = "edgeprune.journal/1"
FILE_NAME = "journal.jsonl"

_DAMAGED = "the journal was changed by hand or the disk is damaged: start again in a new folder"


class Journal:
    """The open journal of one run, a context manager; the only writer of the folder while it is open."""

    def __init__(self, path: Path, descriptor: int, inputs: Mapping[str, Any], trials: list[Trial], size: int) -> None:
        """Use `Journal.open`."""
        self.path = path
        self.inputs = inputs
        self._descriptor = descriptor
        self._trials = trials
        self._size = size

    @classmethod
    def open(cls, folder: Path, inputs: Mapping[str, Any], *, resume: bool = False) -> Journal:
        """The journal in `folder`, begun with `inputs` (plain data) or, with `resume`, gone on with.

        Resuming where no journal is begins one: the run was killed before its first line. Raises UsageError where
        a run is there already, is running, or was started with other inputs; StorageError where the journal
        cannot be read or written.
        """
        path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _storage_error(error, path, "open the journal") from error
        try:
            return cls._opened(path, descriptor, inputs, resume)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def check(cls, folder: Path, inputs: Mapping[str, Any], *, resume: bool = False) -> None:
        """Raise what `open` would, as far as it is known now: `inputs` are some of them. Nothing is made or changed."""
        path = folder / FILE_NAME
        try:
            if folder.exists() and not os.access(folder, os.W_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _storage_error(error, path, "open the journal") from error
        try:
            _lock(path, descriptor, fcntl.LOCK_SH)
            header, trials, _, _ = _read(path, descriptor)
            recorded = None if header is None else {name: header.get(name) for name in inputs}
            _refuse(path, recorded, trials, _plain(inputs), resume=resume)
        finally:
            os.close(descriptor)

    @classmethod
    def _opened(cls, path: Path, descriptor: int, inputs: Mapping[str, Any], resume: bool) -> Journal:
        _lock(path, descriptor, fcntl.LOCK_EX)
        header, trials, size, total = _read(path, descriptor)
        inputs = _plain(inputs)
        _refuse(path, header, trials, inputs, resume=resume)
        try:
            if header is None or not resume:
                size = 0
            if size < total:
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            _sync_folder(path.parent)
        except OSError as error:
            raise _storage_error(error, path, "write the journal") from error
        journal = cls(path, descriptor, inputs, trials, size)
        if size == 0:
            journal._append({"kind": "inputs", "schema": SCHEMA, "inputs": inputs})
        return journal

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All finished trials, in order; trial number n is entry n."""
        return tuple(self._trials)

    def add(self, trial: Trial) -> None:
        """Append a finished trial; when this returns, it is on disk. Raises StorageError; the journal stays whole."""
        if trial.number != len(self._trials):
            raise ValueError(f"trial {trial.number} after {len(self._trials)} trials")
        self._append({"kind": "trial", "trial": codec.to_json(trial)})
        self._trials.append(trial)

    def add_attempt(self, number: int, outcome: str, message: str) -> None:
        """Note an attempt at trial `number` that failed, or was doubted, and was followed by another."""
        self._append({"kind": "attempt", "number": number, "outcome": outcome, "message": message})

    def close(self) -> None:
        """Let go of the file and the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Journal:
        """The journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except BaseException as error:
            # Whatever of the line arrived must go, so that a next entry starts on a line of its own.
            os.ftruncate(self._descriptor, self._size)
            if isinstance(error, OSError):
                raise _storage_error(error, self.path, "write the journal") from error
            raise
        self._size += len(line)


def read_trials(folder: Path) -> tuple[Trial, ...]:
    """The finished trials of a run's folder, without opening it for writing; raises StorageError."""
    path = folder / FILE_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _storage_error(error, path, "read the journal") from error
    try:
        return tuple(_read(path, descriptor)[1])
    finally:
        os.close(descriptor)


def _read(path: Path, descriptor: int) -> tuple[Mapping[str, Any] | None, list[Trial], int, int]:
    """Inputs (None where there are none yet), trials, the size of what is whole, the size of the file."""
    try:
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(0)
            content = file.read()
    except OSError as error:
        raise _storage_error(error, path, "read the journal") from error
    whole = content.rfind(b"\n") + 1
    inputs: Mapping[str, Any] | None = None
    trials: list[Trial] = []
    for line, text in enumerate(content[:whole].splitlines(), start=1):
        entry = _entry(text, f"{path}:{line}", len(trials))
        if line == 1:
            inputs = _inputs(entry, path)
        elif isinstance(entry, Trial):
            trials.append(entry)
    return inputs, trials, whole, len(content)


def _entry(text: bytes, where: str, number: int) -> Trial | Mapping[str, Any]:
    """A line's trial, which must be `number`, or whatever else it holds; raises StorageError."""
    try:
        entry = json.loads(text)
        kind = entry["kind"]
        if kind not in ("inputs", "trial", "attempt"):
            raise ValueError(f"unknown kind of entry {kind!r}")
        record: Trial | dict[str, Any] = codec.trial_from_json(entry["trial"]) if kind == "trial" else entry
    except (ValueError, KeyError, TypeError, StorageError) as error:
        raise DamagedError(f"{where}: damaged journal: {error}", hint=_DAMAGED) from error
    if isinstance(record, Trial) and record.number != number:
        message = f"{where}: damaged journal: trial {record.number} where trial {number} should be"
        raise DamagedError(message, hint=_DAMAGED)
    return record


def _inputs(entry: Trial | Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    if isinstance(entry, Trial) or entry.get("schema") != SCHEMA or not isinstance(entry.get("inputs"), dict):
        raise DamagedError(f"{path}:1: not the beginning of a journal of {SCHEMA}", hint=_DAMAGED)
    inputs: dict[str, Any] = entry["inputs"]
    return inputs


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the inputs look like after a round trip is what they are compared with: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(inputs, allow_nan=False))
    return plain


def _lock(path: Path, descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"{path.parent}: another run is working in this folder",
            hint="wait until it is done, or choose another folder with --run-dir",
        ) from error


def _refuse(
    path: Path, recorded: Mapping[str, Any] | None, trials: list[Trial], given: Mapping[str, Any], *, resume: bool
) -> None:
    if trials and not resume:
        raise UsageError(
            f"{path.parent}: this folder already holds a run with {len(trials)} trials",
            hint="go on with it with --resume, or choose another folder with --run-dir",
        )
    different = list(_differences(recorded, given)) if recorded is not None and resume else []
    if different:
        raise UsageError(
            f"{path.parent}: this run was started with other inputs: {'; '.join(different)}",
            hint="resume with the inputs it was started with, or start a new run in another folder",
        )


def _differences(recorded: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """ "search.seed was 0, is now 5": what differs, and nothing else."""
    for name in sorted(recorded.keys() | given.keys()):
        before, now = recorded.get(name), given.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, f"{prefix}{name}.")
        elif before != now:
            yield f"{prefix}{name} was {before!r}, is now {now!r}"


_HINTS = {
    errno.ENOSPC: "free some space, then go on with --resume: no finished trial is lost",
    errno.EDQUOT: "your disk quota is used up: free some space, then go on with --resume: no finished trial is lost",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "check the owner and the permissions of the folder, or choose another one",
    errno.EPERM: "check the owner and the permissions of the folder, or choose another one",
    errno.EIO: "the disk reports an input/output error: check it, or choose another folder",
}


def _storage_error(error: OSError, path: Path, doing: str) -> StorageError:
    reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
    hint = _HINTS.get(error.errno or 0, "check the path, its permissions and the disk")
    return StorageError(f"{path}: cannot {doing}: {reason}", hint=hint)


def _sync_folder(folder: Path) -> None:
    """Make the new file's name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
