"""The profile pass: how long each node of a model takes, by the runtime's own profiler."""

import json
import tempfile
from pathlib import Path
from typing import Any

from .frames import Frames
from .latency import middle, timed_block, warm_up
from .runtimes import load_runtime
from .system import clock_ns

EVENT_LIMIT = 300000  # nodes times runs: beyond, ONNX Runtime would drop events, and a small board its memory
SUFFIX = "_kernel_time"
TEXT = 500  # characters of a name that are kept


def profile_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":
    """Time `profile_runs` runs without, then as many with the profiler; tells the nodes in the order of execution."""
    runtime = load_runtime(task)
    with tempfile.TemporaryDirectory(dir=str(Path(task["model"]).parent)) as folder:
        run, finish = runtime.profiled(task, str(Path(folder) / "trace"))  # first: it may have no profiler
        run()
        nodes = read_nodes(Path(finish()))
        runs = max(1, min(task["profile_runs"], EVENT_LIMIT // max(1, len(nodes))))
        run = runtime.load(task)
        warm_up(run, task)
        plain = timed_block(run, 0, runs, clock_ns)
        run, finish = runtime.profiled(task, str(Path(folder) / "trace"))
        warm_up(run, dict(task, warmup_s=task["warmup_s"] / 10))
        count = runs
        profiled = timed_block(run, 0, count, clock_ns)
        nodes = read_nodes(Path(finish()), count)
    for node in nodes:
        out.send(type="part", part=node)
    return {
        "runtime": runtime.name,
        "version": runtime.version,
        "runs": count,
        "nodes": len(nodes),
        "profiled_ns": middle(profiled),
        "plain_ns": middle(plain),
    }


def read_nodes(trace: Path, last: int = 0) -> "list[dict[str, Any]]":
    """The kernels of ONNX Runtime's trace, one event to a line, over the `last` runs (0: all).

    onnxruntime/core/common/profiler.cc: durations are whole microseconds, cut off: half of one is added.
    """
    seen = {}  # type: dict[tuple[str, str], dict[str, Any]]
    with trace.open() as file:
        for line in file:
            if not line.startswith("{"):
                continue
            event = json.loads(line.rstrip().rstrip(","))
            if event.get("cat") != "Node" or not event["name"].endswith(SUFFIX):
                continue
            args = event["args"]
            key = (event["name"], str(args.get("node_index")))
            if key not in seen:
                seen[key] = {
                    "name": event["name"][: -len(SUFFIX)][:TEXT],
                    "op_type": str(args.get("op_name", "")),
                    "provider": str(args.get("provider", "")),
                    "inputs": shapes(args.get("input_type_shape")),
                    "outputs": shapes(args.get("output_type_shape")),
                    "us": [],
                }
            seen[key]["us"].append(event["dur"])
    nodes = list(seen.values())
    for node in nodes:
        values = node.pop("us")[-last:]
        node["runs"] = len(values)
        node["ns"] = int(1000 * interquartile_mean(values) + 500)
    return nodes


def shapes(told: "Any") -> "list[list[int]]":
    """Of [{"float": [1, 3]}, ...]."""
    return [list(shape) for entry in told or [] for shape in entry.values()]


def interquartile_mean(values: "list[int]") -> float:
    """The mean of the middle half."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)
