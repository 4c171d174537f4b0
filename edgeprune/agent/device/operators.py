"""The operators pass: many small models in one process, each timed twice, in two different orders."""

import base64
import gc
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from .frames import Frames, OutcomeError
from .latency import time_runs, warm_up
from .profile import read_nodes
from .runtimes import load_runtime

PASSES = 2
LAYOUT = ("ReorderInput", "ReorderOutput")  # that a model of one operator pays, and its neighbours save
ERROR = 500  # characters


def operators_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":
    """`file` holds a JSON line for each model: key, suffix, inputs, model (base64). Tells each pass over each model.

    A model that fails says so under its key alone. The second order differs from the first: what drifts meanwhile
    shows as a difference of the two.
    """
    order = random.Random(task["seed"])
    runtimes = {}  # type: dict[str, Any]
    failed = set()  # type: set[int]
    with tempfile.TemporaryDirectory(dir=str(Path(task["file"]).parent)) as folder, open(task["file"], "rb") as file:
        starts = []  # type: list[int]
        line = b" "
        while line:
            starts.append(file.tell())
            line = file.readline()
        starts.pop()
        for number in range(PASSES):
            order.shuffle(starts)
            for start in starts:
                if start in failed:
                    continue
                file.seek(start)
                entry = json.loads(file.readline().decode())
                try:
                    found = time_model(task, entry, Path(folder), runtimes, number == PASSES - 1)
                except OutcomeError:
                    raise  # no such runtime: the same for all
                except MemoryError:
                    raise
                except Exception as error:
                    failed.add(start)
                    found = {"error": "{}: {}".format(type(error).__name__, error)[:ERROR]}
                out.send(type="part", part=dict(found, key=entry["key"], number=number))
    named = sorted(runtimes.values(), key=lambda runtime: str(runtime.name))
    return {
        "runtime": named[0].name if named else task["runtime"],
        "version": named[0].version if named else "",
        "models": len(starts),
        "failed": len(failed),
    }


def time_model(
    task: "dict[str, Any]", entry: "dict[str, Any]", folder: Path, runtimes: "dict[str, Any]", last: bool
) -> "dict[str, Any]":
    """Loaded anew, warmed up, timed; in the last pass also under the profiler, where there is one."""
    path = folder / ("model" + entry["suffix"])
    if path.exists():
        path.unlink()  # not written over: the model before may still be mapped
    path.write_bytes(base64.b64decode(entry["model"]))
    one = dict(task, model=str(path), inputs=entry["inputs"])
    if entry["suffix"] not in runtimes:
        runtimes[entry["suffix"]] = load_runtime(one)
    runtime = runtimes[entry["suffix"]]
    run = runtime.load(one)
    warm_up(run, one)
    gc.disable()
    samples, settled = time_runs(run, one)
    gc.enable()
    ordered = sorted(samples)
    found = {
        "p50_ns": ordered[len(ordered) // 2],
        "p25_ns": ordered[len(ordered) // 4],
        "runs": len(ordered),
        "settled": settled,
    }
    if last:
        kernel = kernel_ns(runtime, one, folder, len(ordered))
        if kernel is not None:
            found["kernel_ns"] = kernel
    return found


def kernel_ns(runtime: "Any", task: "dict[str, Any]", folder: Path, runs: int) -> "int | None":
    """All nodes but changes of layout; None where the runtime has no profiler."""
    try:
        run, finish = runtime.profiled(task, str(folder / "trace"))
    except OutcomeError as failure:
        if failure.outcome != "NO_PROFILER":
            raise
        return None
    count = max(10, min(runs, task["profile_runs"]))
    for _ in range(count + count // 5):  # the first ones warm up
        run()
    trace = Path(finish())
    nodes = read_nodes(trace, count)
    trace.unlink()
    return sum(int(node["ns"]) for node in nodes if node["op_type"] not in LAYOUT)
