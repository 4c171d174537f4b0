"""Brings a runtime onto a device that has none: the host's half. The device needs Python, but no pip and no network."""

from __future__ import annotations

import base64
import contextlib
import importlib.resources
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeprune.agent.wheels import Wheel
from edgeprune.errors import StorageError, TargetError
from edgeprune.progress import SILENT, Progress
from edgeprune.targets.base import Channel, Target

__all__ = ["Bootstrap"]

_ANSWER_S = 60.0
_UNPACK_S = 600.0  # a large wheel onto a slow SD card
_BLOCK = 1 << 17
_LINE_LIMIT = 1 << 20
_MARK = b'"edgeprune_bootstrap"'


class Bootstrap:
    """Commands to the program on the device; the target is open and belongs to the caller."""

    def __init__(self, target: Target) -> None:
        self._target = target
        source = importlib.resources.files("edgeprune.agent") / "bootstrap_device.py"
        with importlib.resources.as_file(source) as path:
            self._program = target.upload(path, "bootstrap.py")

    def facts(self) -> Mapping[str, Any]:
        """Machine, userland, C library, Python, free space, clock, what is installed; raises TargetError."""
        with self._command("facts") as command:
            return command.done(_ANSWER_S)

    def install(self, runtime: str, version: str, wheels: Sequence[Wheel], progress: Progress = SILENT) -> None:
        """Send what is not there yet and unpack it, in place of what was installed.

        What has arrived stays when this is interrupted, and is not sent again. Raises TargetError (NO_SPACE, LOST,
        NO_RUNTIME where a wheel is not one).
        """
        request = {
            "runtime": runtime,
            "version": version,
            "wheels": [{"name": wheel.path.name, "size": wheel.size, "sha256": wheel.sha256} for wheel in wheels],
            "unpacked_bytes": sum(wheel.unpacked_bytes for wheel in wheels),
        }
        total = sum(wheel.size for wheel in wheels)
        with self._command("install", request) as command:
            with progress.step(f"sending {total / 1e6:.0f} MB to {self._target.name} (kB)", total // 1000) as step:
                for wheel in wheels:
                    offset = command.offset(wheel)
                    step.advance(offset // 1000, wheel.path.name)
                    for count in command.send_file(wheel, offset):
                        step.advance(count // 1000)
            with progress.step("unpacking there", len(wheels)) as step:
                command.done(_UNPACK_S, on_frame=lambda frame: step.advance(1, str(frame.get("unpacking", ""))))

    def run_golden(self, model: bytes, inputs: Mapping[str, Any], timeout_s: float = 120.0) -> Mapping[str, Any]:
        """`outputs` (flat lists), `version` and `place` of the runtime; raises TargetError (NO_RUNTIME, CRASHED)."""
        request = {"model": base64.b64encode(model).decode(), "inputs": dict(inputs)}
        with self._command("golden", request) as command:
            return command.done(timeout_s)

    def remove(self) -> Mapping[str, Any]:
        """Remove all of it; `removed` says whether there was anything."""
        with self._command("remove") as command:
            return command.done(_UNPACK_S)

    @contextlib.contextmanager
    def _command(self, name: str, request: Mapping[str, Any] | None = None) -> Iterator[_Command]:
        channel = self._target.start([self._target.python, "-B", "-u", self._program, name])
        try:
            if request is not None:
                channel.send(json.dumps(request, separators=(",", ":")).encode() + b"\n")
            yield _Command(channel, self._target.name)
        finally:
            channel.close()


class _Command:
    """One running command: its answers, and the files that it asks for."""

    def __init__(self, channel: Channel, where: str) -> None:
        self._channel = channel
        self._where = where
        self._buffer = b""

    def done(self, timeout_s: float, on_frame: Any = lambda _: None) -> Mapping[str, Any]:
        """The command's last answer."""
        while "done" not in (frame := self._frame(timeout_s)):
            on_frame(frame)
        answer: Mapping[str, Any] = frame["done"]
        return answer

    def offset(self, wheel: Wheel) -> int:
        """How much of a wheel is there already."""
        frame = self._frame(_UNPACK_S)  # the one before is still being checked
        if frame.get("want") != wheel.sha256 or not 0 <= int(frame.get("offset", -1)) <= wheel.size:
            raise TargetError(f"{self._where}: an unexpected answer: {str(frame)[:200]}", outcome="LOST")
        return int(frame["offset"])

    def send_file(self, wheel: Wheel, offset: int) -> Iterator[int]:
        """Send the rest of a wheel; gives the sizes of the blocks."""
        left = wheel.size - offset
        try:
            with wheel.path.open("rb") as file:
                file.seek(offset)
                while left:
                    data = file.read(min(_BLOCK, left))
                    if not data:
                        raise StorageError(f"{wheel.path} has become shorter")
                    self._channel.send(data)
                    left -= len(data)
                    yield len(data)
        except OSError as error:
            raise StorageError(f"cannot read {wheel.path}: {error.strerror}") from error

    def _frame(self, timeout_s: float) -> Mapping[str, Any]:
        """The next line of the program; raises TargetError with the outcome that it names."""
        frame = json.loads(self._line(time.monotonic() + timeout_s))
        if "outcome" in frame:
            hint = {
                "NO_SPACE": "free some space there",
                "LOST": "try again: what has arrived is not sent again",
            }.get(frame["outcome"])
            raise TargetError(f"{self._where}: {frame['message']}", hint=hint, outcome=str(frame["outcome"]))
        return dict(frame)

    def _line(self, end: float) -> bytes:
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if line.startswith(b"{") and _MARK in line:
                    return line
                continue  # what a login shell prints
            data = self._channel.receive(max(0.0, end - time.monotonic()))
            if not data or len(self._buffer) > _LINE_LIMIT:
                said = self._channel.diagnostics.strip()[-500:]
                raise TargetError(
                    f"{self._where}: the program there has ended without an answer{': ' + said if said else ''}",
                    outcome="CRASHED",
                )
            self._buffer += data
