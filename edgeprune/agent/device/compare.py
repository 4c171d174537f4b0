"""The interleaved pass: two models in one process, in short blocks in random order: both see the same device."""

import gc
import random
from typing import Any

from .frames import Frames
from .latency import middle, timed_block, warm_up
from .runtimes import load_runtime
from .system import clock_ns

BLOCK_S = 0.05
BLOCK_RUNS = 5


def compare_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """`pairs`: the medians (ns) of one block of each model, one after the other.

    The first run of a block is not timed: it finds the caches full of the other model.
    """
    order = random.Random(task["seed"])
    arms = [dict(task, **arm) for arm in task["arms"]]
    runs = [None, None]  # type: list[Any]
    versions = ["", ""]
    for arm in order.sample([0, 1], 2):  # what is loaded first may lie better in memory
        runtime = load_runtime(arms[arm])
        runs[arm], versions[arm] = runtime.load(arms[arm]), runtime.name + " " + runtime.version
    for run in runs:
        if not hasattr(run, "series"):
            warm_up(run, task)
    pairs = []  # type: list[list[int]]
    gc.collect()
    gc.disable()
    start = clock_ns()
    while clock_ns() - start < task["compare_s"] * 1e9 or len(pairs) < 3:
        medians = [0, 0]
        for arm in order.sample([0, 1], 2):
            if not hasattr(runs[arm], "series"):
                runs[arm]()
            medians[arm] = middle(timed_block(runs[arm], BLOCK_S, BLOCK_RUNS, clock_ns))
        pairs.append(medians)
    gc.enable()
    return {"pairs": pairs, "versions": versions}
