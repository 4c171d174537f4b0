"""The worker: a fresh process for each pass of a measurement."""

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from .frames import OUT_OF_MEMORY, STDERR_TAIL, Frames, OutcomeError, claim_stdout
from .system import read_text

TASKS = {  # by name, the module with its `NAME_task`
    "installed": "runtimes",
    "runtime": "runtimes",
    "latency": "latency",
    "compare": "compare",
    "memory": "memory",
    "energy": "energy",
    "outputs": "outputs",
    "profile": "profile",
    "operators": "operators",
    "cached": "cache",
}


def run_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":
    """The pass that the task names; only its own module is imported, so that memory figures stay small."""
    name = task["task"]
    module = importlib.import_module("." + TASKS[name], __package__)
    return dict(getattr(module, name + "_task")(task, out))


def silence_telemetry() -> None:
    """Recent versions of ONNX Runtime would write an identifier to the disk, start a thread, and send usage data."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def use_installed_packages() -> None:
    """What `edgeprune device setup` installed for this kind of interpreter comes first."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(cache if cache.startswith("/") else os.path.expanduser("~/.cache")) / "edgeprune"
    site = home / ("site-" + str(sys.implementation.cache_tag))
    if site.is_dir():
        sys.path.insert(0, str(site))


def big_cores(usable: "set[int]", root: Path) -> "set[int]":
    """Of the usable cores those of the highest capacity, else of the highest clock.

    Linux: Documentation/ABI/testing/sysfs-devices-system-cpu, Documentation/admin-guide/pm/cpufreq.rst.
    """
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        told = {core: read_text(root / "sys/devices/system/cpu/cpu{}".format(core) / name) for core in usable}
        if all(text.isdigit() for text in told.values()):
            highest = max(int(text) for text in told.values())
            return {core for core, text in told.items() if int(text) == highest}
    how = "name them in the measurement policy, for example cores: [{}]".format(min(usable))
    raise OutcomeError(
        "NO_CORES",
        "which cores are big is not known: the kernel tells neither cpu_capacity nor cpuinfo_max_freq; " + how,
    )


def pin(cores: "Any", root: Path = Path("/")) -> "list[int]":
    """Stay on the named cores, or on the "big" ones; every thread that is started later does as well."""
    usable = os.sched_getaffinity(0)
    chosen = big_cores(usable, root) if cores == "big" else set(cores)
    absent = sorted(chosen - usable)
    if absent:
        message = "no core {} can be used here, only {}; change cores in the measurement policy"
        raise OutcomeError(
            "NO_CORES", message.format(*(", ".join(map(str, part)) for part in (absent, sorted(usable))))
        )
    os.sched_setaffinity(0, chosen)
    return sorted(chosen)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (prctl PR_SET_PDEATHSIG), however that ends."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # no libc with prctl: the agent still kills its workers when its input ends
    if os.getppid() != parent:
        os._exit(1)


def worker_main() -> int:
    """One pass of a measurement, described by one JSON line on stdin."""
    out = claim_stdout()
    task = json.loads(sys.stdin.readline())
    die_with_parent(task["parent"])
    silence_telemetry()
    use_installed_packages()
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel shall take this process, and no other
    except OSError as error:
        print("oom_score_adj:", error, file=sys.stderr)
    try:
        pinned = {"cores": pin(task["cores"])} if task.get("cores") else {}
        result = dict(run_task(task, out), **pinned)
    except OutcomeError as failure:
        out.send(type="failed", outcome=failure.outcome, message=str(failure))
    except Exception as error:
        text = "{}: {}".format(type(error).__name__, error)
        short = isinstance(error, MemoryError) or any(sign in text.lower() for sign in OUT_OF_MEMORY)
        out.send(type="failed", outcome="OOM" if short else "CRASHED", message=text[:STDERR_TAIL])
    else:
        out.send(type="done", result=result)
    return 0
