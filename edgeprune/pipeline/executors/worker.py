"""The process of one local worker: three lines in (plan, job, folder), one line out, until its input ends."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import BinaryIO

__all__ = ["main"]


def main() -> None:
    """Serve; what the task prints goes to stderr."""
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
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)  # the executor's own
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
