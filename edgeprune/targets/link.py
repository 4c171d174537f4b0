"""The seam below a remote target: a way to give a device's login shell a command line. SSH and ADB implement it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Link", "Stream"]


class Stream(Protocol):
    """A running command line, its stdin, stdout and stderr apart."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data`; raises TargetError (TIMEOUT where nothing of it is taken in time, LOST)."""

    def end_input(self) -> None:
        """Close the command's stdin. Never raises."""

    def receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, b"" at its end; raises TargetError (TIMEOUT, LOST)."""

    def status(self, timeout_s: float) -> int:
        """The exit status, not 0 where a signal ended it; raises TargetError (TIMEOUT, LOST)."""

    def close(self) -> None:
        """Give the stream up; the command may go on. Never raises."""

    @property
    def diagnostics(self) -> str:
        """The last few kB of stderr."""


class Link(Protocol):
    """A connection to one device, made and given up any number of times."""

    name: str

    def connect(self) -> None:
        """Make the connection; raises TargetError."""

    def disconnect(self) -> None:
        """Give the connection up. Never raises."""

    @property
    def alive(self) -> bool:
        """False where the connection is known to be gone."""

    def open(self, line: str) -> Stream:
        """Have the login shell run a command line; raises TargetError."""
