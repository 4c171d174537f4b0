"""The memory pass: how far a fresh process grows while it loads and runs a model.

The allocator is left as it is, without trimming or limits on its arenas: the figures are of the model as it would run.
The kernel keeps the peak of the resident size (VmHWM) but not what it was made of; that is read from outside, by the
agent, again and again (`Sampler`). Names of /proc/PID/status: proc(5).
"""

import os

from .frames import Frames, OutcomeError
from .system import kib, read_table, read_text

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

NAMES = {"peak": "VmHWM", "resident": "VmRSS", "anonymous": "RssAnon", "swapped": "VmSwap"}
RUNS = 3


def memory_of(process: str = "self", root: "Path | str" = "/") -> "dict[str, int]":
    """Bytes of a process: peak and present resident size, anonymous and file-backed (shared too), swapped out."""
    table = read_table(os.path.join(str(root), "proc", process, "status"))
    values = {name: kib(table, entry) for name, entry in NAMES.items()}
    found = {name: value for name, value in values.items() if value is not None}
    if "anonymous" in found and "resident" in found:
        found["file"] = found["resident"] - found["anonymous"]
    return found


def reset_peak() -> bool:
    """Set VmHWM back to the present size (proc(5), clear_refs); False where that is not allowed."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def rounding() -> int:
    """How far the kernel's counters are from its page tables now, which it adds up in batches; at least a page."""
    exact = kib(read_table("/proc/self/smaps_rollup"), "Rss")  # since Linux 4.14
    return max(os.sysconf("SC_PAGE_SIZE"), 0 if exact is None else abs(exact - memory_of()["resident"]))


def nvmap_used(process: str, root: "Path | str" = "/") -> "tuple[int, str] | None":
    """Bytes that the graphics processor of a Jetson has mapped, and whose: "process", or "device" where only root
    may read who the clients are; None elsewhere."""
    text = read_text(
        os.path.join(str(root), "sys/kernel/debug/nvmap/iovmm/clients")
    )  # CLIENT PROCESS PID SIZE, sizes like 2048K
    if text:
        rows = [line.split() for line in text.splitlines()]
        sizes = [row[-1] for row in rows if len(row) >= 4 and row[-2] == process]
        return sum(int(size.rstrip("K")) * 1024 for size in sizes), "process"
    used = kib(read_table(os.path.join(str(root), "proc/meminfo")), "NvMapMemUsed")
    return None if used is None else (used, "device")


class Sampler:
    """Of another process, the memory at its highest resident size and the most of the graphics processor's."""

    def __init__(self, process: int, root: "Path | str") -> None:
        self.process = str(process)
        self.root = root
        self.start()

    def start(self) -> None:
        """Forget what was before."""
        self.ended = False
        self.highest = {}  # type: dict[str, int]
        self.nvmap = nvmap_used(self.process, self.root)
        self.nvmap_highest = self.nvmap

    def sample(self) -> None:
        if self.ended:
            return
        now = memory_of(self.process, self.root)
        if now.get("resident", 0) > self.highest.get("resident", 0):
            self.highest = now
        if self.nvmap_highest is not None:
            self.nvmap_highest = max(self.nvmap_highest, nvmap_used(self.process, self.root) or self.nvmap_highest)

    def result(self) -> "dict[str, Any]":
        found = {"sampled": self.highest}  # type: dict[str, Any]
        if self.nvmap is not None and self.nvmap_highest is not None:
            found["nvmap"] = {"growth": self.nvmap_highest[0] - self.nvmap[0], "scope": self.nvmap[1]}
        return found


def memory_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":
    """Sizes of this process with the runtime alone, after it loaded the model, and after it ran it.

    An idle worker does the same with no model: what it grows by is noise. Raises OutcomeError (NO_VMHWM).
    """
    from .runtimes import load_runtime  # the agent, which needs the rest of this, does not load it

    runtime = load_runtime(task)
    idle = memory_of()
    if "peak" not in idle:
        message = "the kernel there does not tell VmHWM in /proc/self/status; leave peak_memory out of the budget"
        raise OutcomeError("NO_VMHWM", message + ", or measure on a board whose kernel does")
    error = rounding()
    reset = reset_peak()
    base = memory_of()
    out.send(type="stage", stage="load")
    run = (lambda: None) if task["idle"] else runtime.load(task)
    loaded = memory_of()
    reset = reset_peak() and reset
    before = memory_of()
    for _ in range(RUNS):
        run()
    ran = memory_of()
    out.send(type="stage", stage="end")
    peak = max(loaded["peak"], ran["peak"])
    return {
        "idle": idle,
        "base": base,
        "loaded": loaded,
        "ran": ran,
        "reset": reset,
        "rounding": max(error, rounding()),
        "peak": peak,
        "inference": ran["peak"] - before["resident"] if reset else None,
    }
