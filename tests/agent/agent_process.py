"""An agent as a real process, for tests."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

POLICY = {
    "runtime": "onnxruntime",
    "threads": 1,
    "warmup_runs": 3,
    "warmup_s": 0.05,
    "min_s": 0.05,
    "max_s": 2.0,
    "min_runs": 20,
    "max_runs": 1000,
    "ci_share": 0.1,
    "memory_workers": 0,
    "cores": [],
}


class Process:
    """An agent and what it says, line by line."""

    def __init__(self, file: Path, *arguments: str, python: str = sys.executable, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, python, "-B", str(file), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(b"")

    def say(self, **message: Any) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self, *kinds: str) -> dict[str, Any]:
        """The next frame of one of the kinds (of any, where none is named)."""
        while True:
            line = self.lines.get(timeout=60)
            assert line, "the agent has ended"
            if line.strip():
                frame: dict[str, Any] = json.loads(line)
                if not kinds or frame["type"] in kinds:
                    return frame

    def measure(self, model: Path, **changes: Any) -> None:
        request = {
            "model": str(model),
            "inputs": [{"name": "y0", "dtype": "float32", "shape": [1, 64]}],
            "seed": 0,
            "deadline_s": 60.0,
            "policy": {**POLICY, **{name: changes.pop(name) for name in list(changes) if name in POLICY}},
        }
        self.say(request="measure", id=7, **{**request, **changes})

    def worker(self) -> psutil.Process:
        """Its worker process, once there is one that measures."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for child in psutil.Process(self.process.pid).children():
                if child.cpu_times().user > 0.3:  # past its imports
                    return child
            time.sleep(0.02)
        raise AssertionError("no worker")

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stderr.close()


def endless(agent: Process, model: Path) -> psutil.Process:
    """A measurement that would take a minute; its worker."""
    agent.hear("hello")
    agent.measure(model, min_s=60.0, max_s=60.0, max_runs=10**9)
    return agent.worker()


def gone(process: psutil.Process) -> bool:
    try:
        process.wait(timeout=10)
    except psutil.TimeoutExpired:
        return False
    return True
