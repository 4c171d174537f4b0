"""The host's side of the agent's protocol: bounded lines, deadlines, every foreign answer an error with a name."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import TargetError
from edgeprune.targets.base import Channel

__all__ = ["PROTOCOL", "AgentClient", "Reply"]

PROTOCOL = 1
BANNER_LIMIT = 64 * 1024  # bytes that a login shell may print before the agent's first line
LINE_LIMIT = 1 << 20
PING_S = 15.0
SILENCE_S = 60.0  # the agent speaks every 5 s while it works


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request: its last frame, and the samples (ns) of the frames before it."""

    frame: Mapping[str, Any]
    samples_ns: tuple[int, ...]


class AgentClient:
    """Talks to one agent over a channel. Raises TargetError with an outcome; after one, only `close` is of use."""

    def __init__(self, channel: Channel, where: str, *, silence_s: float = SILENCE_S, ping_s: float = PING_S) -> None:
        self._channel = channel
        self._where = where
        self._silence_s = silence_s
        self._buffer = bytearray()
        self._number = 0
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._pinger = threading.Thread(target=self._ping, args=(ping_s,), daemon=True)

    def hello(self, timeout_s: float, on_wait: Callable[[str], None] = lambda _: None) -> Mapping[str, Any]:
        """The agent's first frame; skips what a login shell prints before it. `on_wait(owner)` while it is locked out.

        Raises TargetError: BUSY with the owner, TIMEOUT, LOST.
        """
        end = time.monotonic() + timeout_s
        self._pinger.start()  # also while it waits for the device to be free
        banner = 0
        while True:
            line = self._line(end)
            frame = _agent_frame(line)
            if frame is None:
                banner += len(line) + 1
                if banner > BANNER_LIMIT:
                    raise TargetError(
                        f"{self._where}: something else than the agent answers: {line[:80]!r}",
                        hint="make the login shell's start-up files print nothing where there is no terminal",
                        outcome="LOST",
                    )
                continue
            kind = frame.get("type")
            if kind == "hello":
                self._check_protocol(frame)
                return frame
            owner = _owner(frame.get("holder") or {})
            if kind == "busy":
                raise TargetError(
                    f"{self._where}: the device is being measured on by {owner}",
                    hint="wait until that measurement has ended, or end that process on the device",
                    outcome="BUSY",
                )
            on_wait(owner)

    def request(
        self,
        request: str,
        *,
        timeout_s: float,
        on_beat: Callable[[Mapping[str, Any]], None] = lambda _: None,
        **parameters: Any,
    ) -> Reply:
        """Send a request and wait for its result, at most `timeout_s`; `on_beat` gets each heartbeat."""
        self._number += 1
        self._send({"request": request, "id": self._number, **parameters})
        end = time.monotonic() + timeout_s
        samples: list[int] = []
        while True:
            frame = self._frame(min(end, time.monotonic() + self._silence_s))
            kind = frame.get("type")
            if kind == "error":
                raise TargetError(f"{self._where}: the agent refused: {frame.get('message')}", outcome="CRASHED")
            if frame.get("id") != self._number:
                continue  # the late answer to a request that was given up
            if kind == "result":
                return Reply(frame, tuple(samples))
            if kind == "samples":
                samples.extend(int(value) for value in frame["ns"])
            else:
                on_beat(frame)

    def close(self) -> None:
        """Say goodbye and end the agent. Never raises."""
        if not self._closed.is_set():
            self._closed.set()
            with contextlib.suppress(TargetError):
                self._send({"request": "bye"})
        self._channel.close()

    def _check_protocol(self, frame: Mapping[str, Any]) -> None:
        if frame.get("edgeprune_agent") != PROTOCOL:
            raise TargetError(
                f"{self._where}: the agent speaks protocol {frame.get('edgeprune_agent')}, not {PROTOCOL}",
                outcome="LOST",
            )

    def _send(self, message: Mapping[str, Any]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._sending:
            self._channel.send(data)

    def _ping(self, every_s: float) -> None:
        """Keep the agent alive while the host trains; it ends itself when it hears nothing for long."""
        with contextlib.suppress(TargetError):  # a broken link: the next request says so
            while not self._closed.wait(every_s):
                self._send({"request": "ping"})

    def _frame(self, end: float) -> Mapping[str, Any]:
        line = self._line(end)
        try:
            frame = json.loads(line)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            raise TargetError(f"{self._where}: the agent's answer is garbled: {line[:80]!r}", outcome="LOST")
        return frame

    def _line(self, end: float) -> bytes:
        while True:
            position = self._buffer.find(b"\n")
            if position >= 0:
                line = bytes(self._buffer[:position])
                del self._buffer[: position + 1]
                return line
            if len(self._buffer) > LINE_LIMIT:
                raise TargetError(f"{self._where}: a line of more than {LINE_LIMIT} bytes", outcome="LOST")
            data = self._channel.receive(max(0.0, end - time.monotonic()))
            if not data:
                raise TargetError(
                    f"{self._where}: the agent has ended{_quoted(self._channel.diagnostics)}", outcome="LOST"
                )
            self._buffer += data


def _owner(holder: Mapping[str, Any]) -> str:
    """Who holds the device: "ada@lab (process 4711)"."""
    process = f" (process {holder['pid']})" if "pid" in holder else ""
    return f"{holder.get('owner', 'unknown')}{process}"


def _agent_frame(line: bytes) -> Mapping[str, Any] | None:
    """The frame that the line is, or None where it is not the agent's."""
    if not line.startswith(b"{"):
        return None
    try:
        frame = json.loads(line)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) and "edgeprune_agent" in frame else None


def _quoted(diagnostics: str) -> str:
    text = diagnostics.strip()
    return f"; it said: {text[-500:]}" if text else ""
