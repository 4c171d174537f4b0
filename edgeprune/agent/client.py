"""The host's side of the agent's protocol: bounded lines, deadlines, every foreign answer an error with a name."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.agent.frames import FrameError, check, parse
from edgeprune.errors import TargetError
from edgeprune.targets.base import Channel

__all__ = ["PROTOCOL", "AgentClient", "Reply"]

PROTOCOL = 1
BANNER_LIMIT = 64 * 1024  # bytes that a login shell may print before the agent's first line
LINE_LIMIT = 1 << 20
PING_S = 15.0
_MOST_SAMPLES = 10**8
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
        self._searched = 0  # bytes of the buffer without a newline
        self._requests: Sequence[str] | None = None  # that the agent knows
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
            self._check_protocol(frame)
            kind = frame.get("type")
            if kind not in {"hello", "busy", "waiting"}:
                raise self._unexpected(f"{str(kind)[:80]!r} came before hello")
            self._check(frame)
            if kind == "hello":
                self._requests = frame.get("requests")
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
        """Send a request and wait for its result, at most `timeout_s`; `on_beat` gets each heartbeat.

        Raises TargetError: CRASHED where the agent refuses, TIMEOUT, LOST (also for an answer that cannot be one).
        """
        if self._requests is not None and request not in self._requests:
            raise self._unexpected(f"it cannot {request!r}, only {', '.join(self._requests)}")
        most = (parameters.get("policy") or {}).get("max_runs", _MOST_SAMPLES)
        self._number += 1
        self._send({"request": request, "id": self._number, **parameters})
        end = time.monotonic() + timeout_s
        samples = array("q")
        while True:
            frame = self._frame(min(end, time.monotonic() + self._silence_s))
            kind = frame.get("type")
            number = frame.get("id")
            if isinstance(number, int) and number > self._number:
                raise self._unexpected(f"an answer to request {number}, which was not made")
            self._check(frame, request, parameters)
            if kind == "error" and number in {None, self._number}:
                raise TargetError(f"{self._where}: the agent refused: {frame['message']}", outcome="CRASHED")
            if kind in {"hello", "busy", "waiting"}:
                raise self._unexpected(f"{kind!r} came after hello")
            if number != self._number:
                continue  # the late answer to a request that was given up
            if kind == "result":
                return Reply(frame, tuple(samples))
            if kind == "samples":
                samples.extend(frame["ns"])
                if len(samples) > most:
                    raise self._unexpected(f"more than {most} samples")
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
        if frame["edgeprune_agent"] != PROTOCOL:
            raise TargetError(
                f"{self._where}: the agent speaks protocol {str(frame['edgeprune_agent'])[:20]}, not {PROTOCOL}",
                hint="another version of edgeprune measures there: use the same one, or wait until it ends",
                outcome="LOST",
            )

    def _check(self, frame: Mapping[str, Any], request: str = "", asked: Mapping[str, Any] | None = None) -> None:
        try:
            check(frame, request, asked)
        except FrameError as error:
            raise self._unexpected(str(error)) from error

    def _unexpected(self, what: str) -> TargetError:
        return TargetError(
            f"{self._where}: the agent's answer is not what the protocol says: {what}",
            hint="no figure was made of it; is something else than edgeprune's agent answering?",
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
            return parse(line)
        except FrameError as error:
            raise self._unexpected(str(error)) from error

    def _line(self, end: float) -> bytes:
        while True:
            position = self._buffer.find(b"\n", self._searched)
            if max(position, len(self._buffer) if position < 0 else 0) > LINE_LIMIT:
                raise TargetError(f"{self._where}: a line of more than {LINE_LIMIT} bytes", outcome="LOST")
            if position >= 0:
                line = bytes(self._buffer[:position])
                del self._buffer[: position + 1]
                self._searched = 0
                return line
            self._searched = len(self._buffer)
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
        frame = parse(line)
    except FrameError:
        return None
    return frame if "edgeprune_agent" in frame else None


def _quoted(diagnostics: str) -> str:
    text = diagnostics.strip()
    return f"; it said: {text[-500:]}" if text else ""
