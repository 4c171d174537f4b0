"""One pass of a measurement, as the agent sees it: a worker, what it says, and how it ends."""

import json
import os
import select
import signal
import sys
import time

from .conditions import out_of_memory_kills
from .frames import HEARTBEAT_S, OUT_OF_MEMORY, STDERR_TAIL, OutcomeError
from .memory import Sampler
from .process import Process

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

SAMPLE_S = 0.002  # between two looks at the memory of a worker


class Pass:
    """One worker process and what it has said so far."""

    running = False

    def __init__(self, task: "dict[str, Any]", root: "Path | str") -> None:
        self.kills_before = out_of_memory_kills()
        self.frame = None  # type: Any
        self.samples = []  # type: list[list[int]]
        self.tail = b""
        self.rest = b""
        self.tell = None  # type: Any
        Pass.running = True
        command = [sys.executable, "-B", os.path.realpath(sys.argv[0]), "--worker"]
        self.process = Process(command)
        self.sampler = Sampler(self.process.pid, root) if task["task"] == "memory" else None
        self.stdout, self.stderr = self.process.stdout, self.process.stderr
        data = json.dumps(dict(task, parent=os.getpid())).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self.process.stdin, data) :]
        except BrokenPipeError:
            self.rest = b""  # it died at once: `outcome` says how
        finally:
            os.close(self.process.stdin)

    def take(self, stream: int) -> bool:
        """Read what a stream has; False at its end."""
        data = os.read(stream, 1 << 16)
        if stream == self.stderr:
            self.tail = (self.tail + data)[-STDERR_TAIL:]
            return bool(data)
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            frame = json.loads(line.decode())
            if frame["type"] == "samples":
                self.samples.append(frame["ns"])
            elif frame["type"] == "part" and self.tell is not None:
                self.tell(frame["part"])
            elif frame["type"] == "stage" and self.sampler is not None:
                if frame["stage"] == "load":
                    self.sampler.start()
                else:
                    self.sampler.ended = True
            else:
                self.frame = frame
        return bool(data)

    def kill(self) -> None:
        self.process.kill()
        Pass.running = False
        for stream in (self.stdout, self.stderr):
            os.close(stream)

    def result(self) -> "Any":
        """What the worker found; raises OutcomeError with the outcome that its end stands for."""
        if self.frame is not None and self.frame["type"] == "done":
            sampled = {} if self.sampler is None else self.sampler.result()
            return dict(self.frame["result"], **sampled)
        if self.frame is not None:
            raise OutcomeError(self.frame["outcome"], self.frame["message"])
        code = self.process.returncode  # type: Any
        text = self.tail.decode("utf-8", "replace").strip()
        ending = "exit status {}".format(code) if code >= 0 else signal.Signals(-code).name
        if code == -signal.SIGKILL:
            kills = out_of_memory_kills()
            if kills is None or self.kills_before is None:
                raise OutcomeError("OOM", "the worker was killed (SIGKILL), most likely for want of memory")
            if kills > self.kills_before:
                raise OutcomeError("OOM", "the kernel killed the worker for want of memory")
        if any(sign in text.lower() for sign in OUT_OF_MEMORY):
            raise OutcomeError("OOM", "the worker ran out of memory ({}): {}".format(ending, text))
        raise OutcomeError("CRASHED", "the worker ended with {}{}".format(ending, ": " + text if text else ""))


def run_pass(
    task: "dict[str, Any]", deadline: float, beat: "Any", root: "Path | str" = "/", tell: "Any" = None
) -> Pass:
    """A worker to its end; `beat()` is called every HEARTBEAT_S or more often, `tell(part)` with what it finds.

    Raises OutcomeError.
    """
    worker = Pass(task, root)
    worker.tell = tell
    pause = HEARTBEAT_S if worker.sampler is None else SAMPLE_S
    try:
        streams = [worker.stdout, worker.stderr]
        while streams:
            left = deadline - time.monotonic()
            if left <= 0 and worker.frame is None:
                raise OutcomeError("TIMEOUT", "the {} pass did not end within the deadline".format(task["task"]))
            if left <= 0:
                break
            ready = select.select(streams, [], [], min(left, pause))[0]
            if worker.sampler is not None:
                worker.sampler.sample()
            streams = [stream for stream in streams if stream not in ready or worker.take(stream)]
            if worker.frame is not None:
                deadline = min(deadline, time.monotonic() + 5)  # to shut down; the result is already here
            beat()
        if not streams:
            code = worker.process.wait(max(0.1, deadline - time.monotonic()))
            if code is None and worker.frame is None:
                raise OutcomeError("TIMEOUT", "the {} pass did not end".format(task["task"]))
        worker.result()
    finally:
        worker.kill()
    return worker
