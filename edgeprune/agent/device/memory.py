"""The memory pass: resident sizes of a fresh process, before and after it loads and runs a model."""

from pathlib import Path
from typing import Any

from .frames import Frames, OutcomeError
from .runtimes import load_runtime
from .system import kib, read_table


def own_memory() -> "dict[str, int]":
    """Bytes of this process: peak and present resident size, anonymous and file-backed, swapped out."""
    table = read_table(Path("/proc/self/status"))
    names = {"peak": "VmHWM", "resident": "VmRSS", "anonymous": "RssAnon", "file": "RssFile", "swapped": "VmSwap"}
    values = {name: kib(table, entry) for name, entry in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def reset_peak() -> bool:
    """Set VmHWM back to the present size (proc(5), clear_refs); False where that is not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """Sizes of this process: with the runtime alone, and, where it is not to stay idle, after load and after runs."""
    runtime = load_runtime(task)
    sizes = {"idle": own_memory()}  # type: dict[str, Any]
    if "peak" not in sizes["idle"]:
        raise OutcomeError("NO_VMHWM", "this kernel does not tell VmHWM in /proc/self/status")
    if not task["idle"]:
        run = runtime.load(task)
        sizes["loaded"] = own_memory()
        sizes["reset"] = reset_peak()
        before = own_memory()
        for _ in range(3):
            run()
        sizes["ran"] = own_memory()
        sizes["peak"] = max(sizes["loaded"]["peak"], sizes["ran"]["peak"])
        sizes["inference"] = sizes["ran"]["peak"] - before["resident"] if sizes["reset"] else None
    return sizes
