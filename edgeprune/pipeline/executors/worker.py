"""The process of one local worker: three lines in (plan, job, folder), one line out, until its input ends."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

__all__ = ["TEMP_PREFIX", "main"]

TEMP_PREFIX = "edgeprune-workers-"


def main() -> None:
    """Serve; what the task prints goes to stderr. The argument is the executor's own temporary folder."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests, lines), daemon=True).start()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    from edgeprune.pipeline.executors.work import work

    while True:
        plan, job, folder = lines.get(), lines.get(), lines.get()
        replies.write(work(plan, job, Path(folder)).encode() + b"\n")
        replies.flush()


def _read(requests: BinaryIO, lines: queue.Queue[str]) -> None:
    """Hand lines on until the driver is gone."""
    for line in requests:
        lines.put(line.decode().rstrip("\n"))
    _end()


def _watch(driver: int) -> None:
    """See the driver's death even where processes that it started hold the pipe open."""
    while os.getppid() == driver:
        time.sleep(1.0)
    _end()


def _end() -> None:
    """End this process, whatever it is at, and what it started."""
    # Not tempfile.gettempdir(), which is that of the machine once another worker removed this one.
    if len(sys.argv) == 2 and Path(sys.argv[1]).name.startswith(TEMP_PREFIX):
        shutil.rmtree(sys.argv[1], ignore_errors=True)
    if os.getpgrp() == os.getpid():  # the driver starts it so; a group of others is not its to end
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
