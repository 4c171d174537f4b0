"""The latency pass: warm up, then time single runs."""

import array
import gc
import math
import time
from typing import Any

from .frames import CHUNK, Frames
from .runtimes import load_runtime


def clock_ns() -> int:
    """CLOCK_MONOTONIC_RAW: no clock adjustment reaches it."""
    if hasattr(time, "clock_gettime_ns"):
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return int(time.clock_gettime(time.CLOCK_MONOTONIC_RAW) * 1e9)


def median_settled(samples: "array.array[int]", share: float) -> bool:
    """True where the 95 % interval of the median (order statistics, normal approximation) is within `share` of it."""
    count = len(samples)
    rank = int((count - 1.96 * math.sqrt(count)) / 2)
    if rank < 1:
        return False
    ordered = sorted(samples)
    median = ordered[count // 2]
    return max(ordered[count - rank] - median, median - ordered[rank - 1]) <= share * median


def latency_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":
    """Warm up, then time single runs until the median is known well enough, or to a cap."""
    runtime = load_runtime(task)
    run = runtime.load(task)
    warmup, start = 0, clock_ns()
    while warmup < task["warmup_runs"] or clock_ns() - start < task["warmup_s"] * 1e9:
        run()
        warmup += 1
    samples = array.array("q")
    next_check = task["min_runs"]
    converged = False
    gc.collect()
    gc.disable()
    start = clock_ns()
    while not converged:
        begin = clock_ns()
        run()
        end = clock_ns()
        samples.append(end - begin)
        count, elapsed_s = len(samples), (end - start) / 1e9
        capped = count >= task["max_runs"] or elapsed_s >= task["max_s"]
        if capped or (count >= next_check and elapsed_s >= task["min_s"]):
            converged = median_settled(samples, task["ci_share"])
            next_check = count + max(10, count // 10)
        if capped:
            break
    gc.enable()
    for first in range(0, len(samples), CHUNK):
        out.send(type="samples", ns=samples[first : first + CHUNK].tolist())
    return {
        "runtime": runtime.name,
        "version": runtime.version,
        "warmup_runs": warmup,
        "converged": converged,
        "runs": len(samples),
    }
