"""The seam to a device: where files go and how the agent is started. `local`, `ssh` and fakes implement it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

__all__ = ["Channel", "Target"]


@runtime_checkable
class Channel(Protocol):
    """A running program on the device, its stdin and stdout as bytes. Closing it ends the program."""

    def send(self, data: bytes) -> None:
        """Write all of `data` to the program's stdin; raises TargetError (outcome LOST)."""

    def receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, b"" at its end; raises TargetError (TIMEOUT where nothing came in time, LOST)."""

    def close(self) -> None:
        """End of input for the program; waits for it to end, kills it where it does not. Never raises."""

    @property
    def diagnostics(self) -> str:
        """The last few kB of the program's stderr."""


@runtime_checkable
class Target(Protocol):
    """One reachable device. A context manager: entering connects, leaving disconnects and leaves nothing behind."""

    name: str  # "local", "ssh://pi@board:22"

    def __enter__(self) -> Target: ...

    def __exit__(self, *exc: object) -> None: ...

    @property
    def folder(self) -> str:
        """A private folder on the device (mode 0700), removed on leaving."""

    @property
    def python(self) -> str:
        """The device's Python interpreter that runs the agent."""

    @property
    def home(self) -> str:
        """A private folder that stays (`~/.cache/edgeprune`, mode 0700): for artifacts and runtimes. Made on first use.

        Raises TargetError where it is a link, belongs to someone else, or others may write to it.
        """

    def upload(self, source: Path, name: str, folder: str | None = None) -> str:
        """Put a file under `name` into `folder` (default: the session's); its path on the device.

        Checked by sha256 and renamed into place; a link that is found there is replaced, not followed. `folder` is
        `home` or one below it, and exists. Raises TargetError (NO_SPACE, LOST), StorageError, UsageError.
        """

    def start(self, argv: Sequence[str]) -> Channel:
        """Start a program; every argument reaches it as it is, no shell in between interprets it."""

    def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes]:
        """Run a short program without input, in the folder: its exit status and its stdout (at most 1 MiB).

        Where the status is not 0, what it wrote to stderr follows. A program that a signal ended has no status of 0;
        one that the device does not have has 127. Raises TargetError (TIMEOUT: it was killed; LOST).
        """
