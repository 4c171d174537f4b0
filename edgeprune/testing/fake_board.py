"""A board on this machine, for tests: its shell is `sh`, its link is cut, refused or slow as the test says.

board = FakeBoard(tmp_path)
with board.target() as target:
    board.cut()
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from edgeprune.errors import TargetError
from edgeprune.targets.link import Stream
from edgeprune.targets.process import ChildProcess
from edgeprune.targets.remote import RemoteTarget

__all__ = ["FakeBoard"]


class FakeBoard:
    """One board; its home and its temporary files are in `folder`. Any number of targets may reach it."""

    def __init__(self, folder: Path, *, name: str = "fake://board", python: str | None = sys.executable) -> None:
        self.name = name
        self.folder = folder
        self.reachable = True  # False: connections are refused
        self.sent_bytes = 0
        self.cut_at: int | None = None  # cut the link once so many bytes have been sent in all
        self._python = python
        self._streams: list[_FakeStream] = []
        for part in ("home", "tmp"):
            (folder / part).mkdir(exist_ok=True)

    def target(self) -> RemoteTarget:
        """A target that reaches the board."""
        return RemoteTarget(_FakeLink(self), python=self._python)

    def cut(self) -> None:
        """Break every connection. Programs see the end of their input."""
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.cut()

    def open(self, line: str, broken: Callable[[], None]) -> _FakeStream:
        """Have the board's shell run a command line."""
        home, tmp = self.folder / "home", self.folder / "tmp"
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(tmp), "XDG_CACHE_HOME": ""}
        environment["EDGEPRUNE_LOCK"] = str(home / "lock")
        stream = _FakeStream(self, ["/bin/sh", "-c", line], environment, broken)
        self._streams.append(stream)
        return stream

    def count(self, size: int) -> None:
        """Count what is sent to the board."""
        self.sent_bytes += size
        if self.cut_at is not None and self.sent_bytes >= self.cut_at:
            self.cut_at = None
            self.cut()


class _FakeLink:
    def __init__(self, board: FakeBoard) -> None:
        self.name = board.name
        self._board = board
        self._connected = False

    def connect(self) -> None:
        if not self._board.reachable:
            raise TargetError(f"{self.name}: Connection refused", outcome="LOST")
        self._connected = True

    def disconnect(self) -> None:
        self._connected = False

    @property
    def alive(self) -> bool:
        return self._connected

    def open(self, line: str) -> Stream:
        if not self._connected:
            raise TargetError(f"{self.name}: the connection is lost", outcome="LOST")
        return self._board.open(line, self.disconnect)


class _FakeStream(ChildProcess):
    def __init__(
        self, board: FakeBoard, argv: list[str], environment: dict[str, str], broken: Callable[[], None]
    ) -> None:
        super().__init__(argv, board.name, environment=environment)
        self._board = board
        self._broken = broken
        self._cut = False

    def cut(self) -> None:
        self._cut = True
        self._broken()
        self.end_input()

    def send(self, data: bytes, timeout_s: float) -> None:
        self._check()
        super().send(data, timeout_s)
        self._board.count(len(data))

    def receive(self, timeout_s: float) -> bytes:
        self._check()
        data = super().receive(timeout_s)
        self._check()
        return data

    def status(self, timeout_s: float) -> int:
        self._check()
        return super().status(timeout_s)

    def _check(self) -> None:
        if self._cut:
            raise TargetError(f"{self._board.name}: the connection is lost", outcome="LOST")
