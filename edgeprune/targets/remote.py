"""What devices behind a shell have in common: folders, files, programs. `ssh` and `adb` say how it is reached."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeprune.errors import CannotMeasureError, TargetError, UsageError
from edgeprune.targets import shell
from edgeprune.targets.base import Channel, Target
from edgeprune.targets.files import checked_name
from edgeprune.targets.link import Link, Stream
from edgeprune.targets.output import collect
from edgeprune.targets.upload import Transfer, Upload

__all__ = ["RemoteChannel", "RemoteTarget"]

_LOG = logging.getLogger(__name__)
_COMMAND_S = 30.0
_SEND_S = 60.0
_PATIENCE_S = 2.0
_NOISE_LIMIT = 1 << 20


class RemoteTarget:
    """One device behind a shell. `last_upload` says what the last upload took."""

    def __init__(self, link: Link, *, python: str | None = None) -> None:
        self.name = link.name
        self.last_upload: Transfer | None = None
        self._link = link
        self._interpreters = (python,) if python else ("python3", "python")
        self._python = ""
        self._folder: str | None = None
        self._home: str | None = None
        self._left: list[str] = []  # folders of visits that ended with a broken link
        self._channels: list[RemoteChannel] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Target:
        if self._folder is not None:
            raise UsageError(f"{self.name}: this target is already open")
        try:
            self._link.connect()
            self._open_folder()
            self._remove_left()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        if self._folder is not None:
            self._left.append(self._folder)
            with contextlib.suppress(CannotMeasureError):
                self._remove_left()
        self._folder = self._home = None
        self._link.disconnect()

    @property
    def folder(self) -> str:
        """A private folder from `mktemp -d` on the device."""
        if self._folder is None:
            raise UsageError(f"{self.name}: enter the target first (with target: ...)")
        return self._folder

    @property
    def home(self) -> str:
        """`edgeprune` in $XDG_CACHE_HOME or ~/.cache on the device; raises TargetError."""
        if self._home is None and self.folder:
            code, said, answer = self.script(shell.HOME)
            if code != 0 or not answer:
                hint = "set XDG_CACHE_HOME for that user to a folder of its own"
                raise self._no_folder(f"no folder to keep files in: {said}", hint)
            self._home = answer[0]
        return str(self._home)

    @property
    def python(self) -> str:
        """The interpreter of the agent, as an absolute path where the device's shell knows one."""
        return self._python

    def upload(self, source: Path, name: str, folder: str | None = None) -> str:
        """Send a file; checked by sha256 and renamed on the device. Raises TargetError (NO_SPACE, LOST, TIMEOUT).

        A broken link is made anew, a bounded number of times, and what has arrived is not sent again; nor is what an
        earlier upload of the same file has left in `home`.
        """
        destination = f"{folder or self.folder}/{checked_name(name)}"
        upload = Upload(self, self._link, source, destination)
        try:
            upload.run(begun=folder is not None)
        finally:
            self.last_upload = upload.transfer
        return destination

    def start(self, argv: Sequence[str]) -> Channel:
        """Start a program in the folder; raises TargetError."""
        channel = self._start(argv)
        self._channels = [open_ for open_ in self._channels if not open_.closed] + [channel]
        return channel

    def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes]:
        """Run a short program in the folder; raises TargetError."""
        return collect(self._start(argv), self.name, timeout_s)

    def script(self, script: str, *arguments: str, timeout_s: float = _COMMAND_S) -> tuple[int, str, Sequence[str]]:
        """Have the device's shell run one of the scripts: exit status, the end of what it said, its answers."""
        stream = self._link.open(shell.command(script, *arguments))
        end = time.monotonic() + timeout_s
        output = b""
        try:
            stream.end_input()
            while data := stream.receive(max(0.0, end - time.monotonic())):
                output += data
                if len(output) > _NOISE_LIMIT:
                    raise _noisy(self.name)
            code = stream.status(max(0.0, end - time.monotonic()))
            said = stream.diagnostics.strip() or output.decode("utf-8", "replace").strip()
        finally:
            stream.close()
        return code, said[-300:], shell.answers(output)

    def _start(self, argv: Sequence[str]) -> RemoteChannel:
        identity = f"{self.folder}/.pid-{next(self._numbers)}"
        stream = self._link.open(shell.command(shell.START, self.folder, identity, *argv))
        return RemoteChannel(stream, self.name, lambda: self._kill(identity))

    def _open_folder(self) -> None:
        code, said, answer = self.script(shell.OPEN, *self._interpreters)
        if code != 0 or not answer or not answer[0].startswith("/"):
            raise self._no_folder(f"cannot make a folder: {said}", "check TMPDIR there")
        self._folder = answer[0]
        if len(answer) < 2:
            with contextlib.suppress(CannotMeasureError):
                self.script(shell.REMOVE, self._folder)
            self._folder = None
            raise TargetError(
                f"{self.name}: there is no {' or '.join(self._interpreters)}",
                hint=f"install Python 3.6 or later, or name it: {self.name}?python=/path/to/python3",
                outcome="NO_RUNTIME",
            )
        self._python = answer[1]

    def _no_folder(self, what: str, hint: str) -> TargetError:
        outcome = "NO_SPACE" if "no space" in what.lower() or "quota" in what.lower() else "LOST"
        return TargetError(f"{self.name}: {what}", hint=hint, outcome=outcome)

    def _remove_left(self) -> None:
        """Nothing stays behind, nor runs on, for a short break of the link; raises TargetError where it lasts."""
        while self._left:
            was_alive = self._link.alive
            try:
                if not was_alive:
                    self._link.connect()
                code, said, _ = self.script(shell.REMOVE, self._left[-1])
                folder = self._left.pop()
                if code != 0:
                    why = said.rpartition("\n")[2]
                    _LOG.warning("%s: %s stays there, remove it by hand: %s", self.name, folder, why)
            except CannotMeasureError:
                self._link.disconnect()
                if not was_alive:  # or it had been broken without anyone knowing
                    raise

    def _kill(self, identity: str) -> None:
        try:
            self.script(shell.KILL, identity, timeout_s=10)
        except CannotMeasureError:
            self._link.disconnect()  # a link that does not answer would hold up all that follows


class RemoteChannel:
    """A program on the device. A closed stream does not end it, so `kill` does where it does not end itself."""

    def __init__(self, stream: Stream, name: str, kill: Callable[[], None]) -> None:
        self._stream = stream
        self._name = name
        self._kill = kill
        self._noise: bytes | None = b""  # what the login shell prints before the program starts
        self._lock = threading.Lock()
        self.closed = False

    def send(self, data: bytes) -> None:
        """Write all of `data`; raises TargetError (LOST, TIMEOUT)."""
        self._stream.send(data, _SEND_S)

    def end_input(self) -> None:
        """Close the program's stdin."""
        self._stream.end_input()

    def receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, b"" at its end; raises TargetError (TIMEOUT, LOST)."""
        end = time.monotonic() + timeout_s
        while True:
            data = self._stream.receive(max(0.0, end - time.monotonic()))
            if self._noise is None or not data:
                return data
            self._noise += data
            before, mark, after = self._noise.partition(shell.STARTED)
            if mark:
                self._noise = None
                if after:
                    return after
            elif len(before) > _NOISE_LIMIT:
                raise _noisy(self._name)

    def status(self, timeout_s: float) -> int:
        """The exit status; raises TargetError (TIMEOUT, LOST)."""
        return self._stream.status(timeout_s)

    def close(self) -> None:
        """End of input; 2 s to end by itself, then it is killed. Never raises."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self._stream.end_input()
        end = time.monotonic() + _PATIENCE_S
        try:
            while self._stream.receive(max(0.0, end - time.monotonic())):  # a full window would keep it from ending
                if time.monotonic() > end:
                    break
            self._stream.status(max(0.0, end - time.monotonic()))
        except CannotMeasureError:
            self._kill()
            with contextlib.suppress(CannotMeasureError):  # dropbear may die of a channel that is closed before its end
                self._stream.status(_PATIENCE_S)
        self._stream.close()

    @property
    def diagnostics(self) -> str:
        """The end of stderr."""
        return self._stream.diagnostics


def _noisy(name: str) -> TargetError:
    return TargetError(
        f"{name}: the login shell prints without end",
        hint="let its start-up files print nothing where they are not interactive",
        outcome="LOST",
    )
