"""The latency pass: warm up until runs get no faster, then time single runs until their median is known."""

import array
import gc
from typing import Any, Callable

from .frames import CHUNK, Frames
from .intervals import median_settled
from .runtimes import load_runtime
from .system import clock_ns

WARMUP_LIMIT = 10  # times the asked warm-up: what is not flat by then is timed as it is, and said to be so


def timed_block(run: "Callable[[], object]", seconds: float, runs: int, clock: "Callable[[], int]") -> "list[int]":
    """Single runs, at least `runs` of them, until the time has passed."""
    if hasattr(run, "series"):  # a runtime that times itself
        return list(run.series(seconds, runs))
    start = clock()
    samples = []  # type: list[int]
    end = start
    while len(samples) < runs or end - start < seconds * 1e9:
        begin = clock()
        run()
        end = clock()
        samples.append(end - begin)
    return samples


def warm_up(
    run: "Callable[[], object]", task: "dict[str, Any]", clock: "Callable[[], int]" = clock_ns
) -> "tuple[int, bool]":
    """Run until the median of a block is no longer below that of the block before; how many runs, and whether it is.

    At least `warmup_runs` and `warmup_s`. "Below" is by more than half of the share that the median is wanted to.
    """
    start = clock()
    before = timed_block(run, task["warmup_s"] / 2, (task["warmup_runs"] + 1) // 2, clock)
    count = len(before)
    while True:
        block = timed_block(run, task["warmup_s"] / 2, max(3, task["warmup_runs"] // 2), clock)
        count += len(block)
        if middle(block) >= middle(before) * (1 - task["ci_share"] / 2):
            return count, True
        if clock() - start >= WARMUP_LIMIT * task["warmup_s"] * 1e9:
            return count, False
        before = block


def middle(samples: "list[int]") -> int:
    """The (upper) median."""
    return sorted(samples)[len(samples) // 2]


def time_runs(
    run: "Callable[[], object]", task: "dict[str, Any]", clock: "Callable[[], int]" = clock_ns
) -> "tuple[array.array[int], bool]":
    """The samples in ns, and whether their median came to be known within `ci_share` before a cap."""
    samples = array.array("q")
    next_check = task["min_runs"]
    start = clock()
    if hasattr(run, "series"):
        return time_series(run.series, task, clock)
    while True:
        begin = clock()
        run()
        end = clock()
        samples.append(end - begin)
        count, elapsed_s = len(samples), (end - start) / 1e9
        capped = count >= task["max_runs"] or elapsed_s >= task["max_s"]
        if capped or (count >= next_check and elapsed_s >= task["min_s"]):
            settled = median_settled(samples, task["ci_share"])
            if settled or capped:
                return samples, settled
            next_check = count + max(10, count // 10)


def time_series(
    series: "Callable[[float, int], list[int]]", task: "dict[str, Any]", clock: "Callable[[], int]"
) -> "tuple[array.array[int], bool]":
    """The same of a runtime that times itself, which warms up before each series."""
    samples = array.array("q")
    start = clock()
    while True:
        samples.extend(series(task["min_s"], task["min_runs"]))
        settled = median_settled(samples, task["ci_share"])
        if settled or len(samples) >= task["max_runs"] or clock() - start >= task["max_s"] * 1e9:
            return samples, settled


def latency_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":
    """Warm up, then time single runs until the median is known well enough, or to a cap."""
    runtime = load_runtime(task)
    run = runtime.load(task)
    warmup, flat = (0, True) if hasattr(run, "series") else warm_up(run, task)
    gc.collect()
    gc.disable()
    samples, converged = time_runs(run, task)
    gc.enable()
    for first in range(0, len(samples), CHUNK):
        out.send(type="samples", ns=samples[first : first + CHUNK].tolist())
    return {
        "runtime": runtime.name,
        "version": runtime.version,
        "warmup_runs": warmup,
        "warm": flat,
        "converged": converged,
        "runs": len(samples),
    }
