"""A file on its way to a device: sent through `cat`, taken up again where the link broke, checked, renamed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from edgeprune.errors import CannotMeasureError, HostKeyError, StorageError, TargetError
from edgeprune.targets import shell
from edgeprune.targets.files import file_sha256
from edgeprune.targets.link import Link, Stream

__all__ = ["Transfer", "Upload"]

_BLOCK = 1 << 16
_SEND_S = 30.0  # for one block
_PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)  # before the attempts to reach the device again
_RECONNECTS = 8  # in one upload
_CHECK_S = 60.0
_CHECK_BYTES_PER_S = 1 << 20  # of a slow core, reading from a slow card


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one upload took. `found_bytes` were there already, from an upload that had been interrupted."""

    size_bytes: int
    sent_bytes: int = 0
    found_bytes: int = 0
    reconnects: int = 0

    @property
    def resent_bytes(self) -> int:
        """What was sent again because a broken link had swallowed it."""
        return max(0, self.sent_bytes + self.found_bytes - self.size_bytes)


class Device(Protocol):
    """What an upload asks of its target."""

    name: str

    @property
    def python(self) -> str:
        """An interpreter, for a device without `sha256sum`."""

    def script(self, script: str, *arguments: str, timeout_s: float = ...) -> tuple[int, str, Sequence[str]]:
        """Exit status, the end of what the script said, its answers; raises TargetError."""


class Upload:
    """One file to one path. `transfer` counts, also where `run` raises."""

    def __init__(self, device: Device, link: Link, source: Path, destination: str) -> None:
        self._device = device
        self._link = link
        self._source = source
        self._destination = destination
        self._part = destination + ".part"
        self.transfer = Transfer(0)

    def run(self, *, begun: bool) -> None:
        """Send, check and rename; `begun`: there may be a part from before. Raises TargetError, StorageError."""
        try:
            digest = file_sha256(self._source)
            with self._source.open("rb") as file:
                self.transfer = Transfer(self._source.stat().st_size)
                self._run(file, digest, begun=begun)
        except OSError as error:
            raise StorageError(f"cannot read {self._source}: {error.strerror}") from error

    def _run(self, file: BinaryIO, digest: str, *, begun: bool) -> None:
        while (error := self._attempt(file, digest, begun=begun)) is not None:
            self._reconnect(error)
            begun = True

    def _attempt(self, file: BinaryIO, digest: str, *, begun: bool) -> TargetError | None:
        """What broke the link, None where the file arrived; raises TargetError where another attempt would not help."""
        try:
            offset = self._state() if begun else 0
            if not self.transfer.reconnects:
                self.transfer = replace(self.transfer, found_bytes=offset)
            self._send(file, offset)
            self._check(digest)
        except _RefusedError:
            raise
        except TargetError as error:
            if error.outcome not in {"LOST", "TIMEOUT"}:
                raise
            return error
        return None

    def _state(self) -> int:
        """How much of the file the part holds; 0 where it holds something else."""
        _, said, answer = self._device.script(
            shell.STATE, self._part, self._device.python, timeout_s=self._check_s(self.transfer.size_bytes)
        )
        if not answer or answer[0] == "gone":
            folder = self._destination.rpartition("/")[0]
            raise _RefusedError(
                f"{self._device.name}: {folder} is gone, and with it {self._source.name}: {said}", outcome="LOST"
            )
        size, _, digest = answer[0].partition(" ")
        if not size.isdigit() or not 0 < int(size) <= self.transfer.size_bytes:
            return 0
        return int(size) if file_sha256(self._source, int(size)) == digest else 0

    def _send(self, file: BinaryIO, offset: int) -> None:
        file.seek(offset)
        stream = self._link.open(shell.command(shell.RECEIVE, self._part, str(offset)))
        try:
            try:
                while block := file.read(_BLOCK):
                    self.transfer = replace(self.transfer, sent_bytes=self.transfer.sent_bytes + len(block))
                    stream.send(block, _SEND_S)
                stream.end_input()
                while stream.receive(_SEND_S):
                    pass  # what the login shell printed
            except TargetError as error:
                if error.outcome == "TIMEOUT" or not self._ended(stream):
                    raise
            code = stream.status(_SEND_S)
            said = stream.diagnostics.strip()[-300:]
        finally:
            stream.close()
        if code != 0:
            raise self._refused(said)

    def _ended(self, stream: Stream) -> bool:
        """True where the receiver ended by itself, False where the link broke."""
        try:
            return stream.status(1.0) >= 0
        except CannotMeasureError:
            return False

    def _check(self, digest: str) -> None:
        size = self.transfer.size_bytes
        code, said, answer = self._device.script(
            shell.CHECK, self._part, self._destination, digest, self._device.python, timeout_s=self._check_s(size)
        )
        if code != 0 or list(answer) != ["stored"]:
            raise self._refused(" ".join(answer) or said)

    def _check_s(self, size: int) -> float:
        return _CHECK_S + size / _CHECK_BYTES_PER_S

    def _reconnect(self, error: TargetError) -> None:
        """Reach the device again; raises what broke the link where that does not succeed."""
        if self.transfer.reconnects >= _RECONNECTS:
            raise error
        self.transfer = replace(self.transfer, reconnects=self.transfer.reconnects + 1)
        for pause in _PAUSES_S:
            time.sleep(pause)
            self._link.disconnect()
            try:
                self._link.connect()
            except HostKeyError:
                raise
            except TargetError as failure:
                if failure.outcome == "TIMEOUT":
                    raise error from failure
            else:
                return
        raise error

    def _refused(self, said: str) -> TargetError:
        """Why the device did not take the file, from what it said and the space it has."""
        needed, name, folder = self.transfer.size_bytes, self._source.name, self._destination.rpartition("/")[0]
        free = None
        with contextlib.suppress(CannotMeasureError):
            self._device.script('rm -f -- "$1" "$1.pid"', self._part)
            answer = self._device.script(shell.FREE, folder)[2]
            free = int(answer[0]) if answer and answer[0].isdigit() else None
        if "no space" in said.lower() or "quota" in said.lower() or (free is not None and free < needed):
            space = "" if free is None else f", {free} free in {folder}"
            return _RefusedError(
                f"{self._device.name}: no space for {name}: {needed} bytes needed{space}",
                hint="free some space there, or set TMPDIR or XDG_CACHE_HOME for that user to a folder that has it",
                outcome="NO_SPACE",
            )
        return _RefusedError(f"{self._device.name}: cannot store {name}: {said}", outcome="LOST")


class _RefusedError(TargetError):
    """The device answered: another attempt would end alike."""
