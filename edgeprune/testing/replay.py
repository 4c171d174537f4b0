"""A device that says again what a recording holds: sessions can be tried without a board.

with Session(ReplayTarget(recording.read(path)), profile) as session:
    session.measure(artifact)  # the recorded figures
"""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.agent.bundle import agent_sha256
from edgeprune.errors import TargetError
from edgeprune.measure.recording import Recording

__all__ = ["ReplayTarget"]


class ReplayTarget:
    """Takes any file, and answers every `measure` as the recorded device did."""

    def __init__(self, recording: Recording) -> None:
        self.name = "replay"
        self.folder = "/replay"
        self.home = "/replay/home"
        self.python = "python3"
        self._recording = recording

    def __enter__(self) -> ReplayTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def upload(self, source: Path, name: str) -> str:  # noqa: ARG002
        """Nothing is sent."""
        return f"{self.folder}/{name}"

    def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes]:  # noqa: ARG002
        """Nothing runs."""
        raise TargetError("a recording runs no programs", outcome="LOST")

    def start(self, argv: Sequence[str]) -> ReplayChannel:  # noqa: ARG002
        """The recorded agent."""
        return ReplayChannel(self._recording)


class ReplayChannel:
    """The recorded agent's side of the protocol."""

    diagnostics = ""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._say({**recording.hello, "sha256": agent_sha256()})

    def send(self, data: bytes) -> None:
        """Requests; `measure` is answered."""
        for line in data.splitlines():
            request = json.loads(line)
            if request["request"] == "measure":
                for frame in self._recording.transcript():
                    self._say({**frame, "id": request["id"]})
            elif request["request"] == "probe":
                self._say({"type": "result", "id": request["id"], "machine": self._recording.hello["machine"]})

    def receive(self, timeout_s: float) -> bytes:
        """The next line."""
        try:
            return self._lines.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            raise TargetError("the recording holds no more", outcome="TIMEOUT") from None

    def close(self) -> None:
        """Nothing to end."""

    def _say(self, frame: Mapping[str, Any]) -> None:
        self._lines.put(json.dumps(frame).encode() + b"\n")
