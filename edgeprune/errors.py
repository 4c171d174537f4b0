"""Every exception that edgeprune raises on purpose, its exit code and its hint.

    EdgepruneError                  70  (never raised itself)
    ├── UsageError                   2  the command or the call was wrong
    │   ├── ConfigError              2  a YAML file is wrong: file, line, key, what would be valid
    │   ├── UnitError                2  a quantity is wrong: "30", "4MB?"
    │   ├── TaskError                2  the user's task is incomplete, raised, or returned nonsense
    │   ├── CaptureError             2  the model cannot be captured
    │   └── UnreadableError          2  a file that the user named cannot be read, or is damaged (a StorageError, too)
    ├── CannotMeasureError           3  no trustworthy measurement could be had; the run can be resumed
    │   ├── TargetError              3  the device cannot be reached or talked to
    │   │   └── HostKeyError         3  the host key is unknown or has changed
    │   └── StorageError             3  the run folder cannot be written (full disk, permissions)
    │       └── DamagedError         3  what a run wrote earlier does not read or fit: only a new run helps
    ├── WorkerError                  3  a trial's worker died again and again; the run can be resumed
    ├── ParityError                  5  the exported artifact disagrees with the model
    └── VerificationError           70  a surgery result differs from its reference; a bug, report it

Infeasibility is a result (exit code 4), Ctrl-C is exit code 130; anything else is a bug and stays a
traceback. A message says what happened and where; `hint` says what would be valid or what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "CannotMeasureError",
    "CaptureError",
    "ConfigError",
    "DamagedError",
    "EdgepruneError",
    "HostKeyError",
    "ParityError",
    "StorageError",
    "TargetError",
    "TaskError",
    "UnitError",
    "UnreadableError",
    "UsageError",
    "VerificationError",
    "WorkerError",
    "did_you_mean",
]


class EdgepruneError(Exception):
    """Root of all edgeprune errors: a message (what, where) and a hint (what to do next)."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EdgepruneError):
    """The command line or the call was wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file is wrong. `line` and `column` count from 1."""

    def __init__(
        self,
        message: str,
        *,
        path: Path | str | None = None,
        line: int | None = None,
        column: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        where = "" if path is None else str(path)
        if where and line is not None:
            where += f":{line}" + ("" if column is None else f":{column}")
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.path = None if path is None else Path(path)
        self.line = line
        self.column = column
        self.key = key


class UnitError(UsageError):
    """A quantity is malformed, has no unit, or has an ambiguous one."""


class TaskError(UsageError):
    """The user's task lacks a part, raised an exception, or returned something unusable."""


class CaptureError(UsageError):
    """The model cannot be captured as a graph."""


class CannotMeasureError(EdgepruneError):
    """No trustworthy measurement could be made. `outcome` is the failure's name (see records.measurement.Outcome)."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str | None = None, outcome: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.outcome = outcome


class TargetError(CannotMeasureError):
    """The device cannot be reached, or does not speak as it should."""


class HostKeyError(TargetError):
    """The SSH host key is unknown or differs from the known one."""


class StorageError(CannotMeasureError):
    """The run folder or a file in it cannot be written or read."""


class DamagedError(StorageError):
    """What a run wrote earlier cannot be read, or belongs to something else: it cannot be gone on with."""


class UnreadableError(UsageError, StorageError):
    """A file that the user named cannot be read, is damaged, or is something else."""


class WorkerError(EdgepruneError):
    """The process that built a trial died, each time it was tried."""

    exit_code = 3


class ParityError(EdgepruneError):
    """The exported artifact computes something else than the model."""

    exit_code = 5


class VerificationError(EdgepruneError):
    """The pruned graph differs from the reference. Names the channel group and the operator."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest valid one where one is near, and all valid ones."""
    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1) or difflib.get_close_matches(
        name.lower(), [valid_name for valid_name in names if valid_name.islower()], n=1
    )
    question = f"did you mean {near[0]!r}? " if near else ""
    return f"{question}valid here: {', '.join(names)}"
