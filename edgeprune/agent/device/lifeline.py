"""The end of input, or silence, ends the agent and all that it started."""

import json
import os
import queue
import select
import signal
import time

from .lock import DeviceLock
from .passes import Pass

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from typing import Any

MAX_LINE = 1 << 20  # bytes of one request
FOLDER_PREFIX = "edgeprune-"


class Lifeline:
    """Reads requests from stdin in a thread; the end of input, or silence, ends the agent and all its workers."""

    def __init__(self, lock: DeviceLock, folder: str, idle_s: float) -> None:
        self.lock = lock
        self.folder = folder
        self.idle_s = idle_s
        self.requests: "queue.Queue[dict[str, Any]]" = queue.Queue()
        self.own_group = False
        if os.getpgrp() != os.getpid():
            os.setsid()
        self.own_group = os.getpgrp() == os.getpid()

    def watch(self) -> None:
        rest = b""
        heard = time.monotonic()
        while True:
            if not select.select([0], [], [], min(5.0, self.idle_s))[0]:
                if time.monotonic() - heard > self.idle_s:
                    self.end(keep_folder=False)
                continue
            data = os.read(0, 1 << 16)
            heard = time.monotonic()
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            if not data or len(rest) > MAX_LINE:
                self.end(keep_folder=False)
            for line in lines:
                self.dispatch(line)

    def dispatch(self, line: bytes) -> None:
        try:
            request = json.loads(line.decode())
            name = request["request"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self.requests.put({"request": "unreadable"})
            return
        if name == "bye":
            self.end(keep_folder=True)
        elif name != "ping":
            self.requests.put(request)

    def end(self, keep_folder: bool) -> None:
        folder = self.folder
        if not keep_folder and os.path.basename(folder).startswith(FOLDER_PREFIX):
            import shutil

            shutil.rmtree(folder, ignore_errors=True)
        self.lock.release()
        if self.own_group and Pass.running:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(0)  # where the group is not ours, the kernel kills the worker (die_with_parent)
