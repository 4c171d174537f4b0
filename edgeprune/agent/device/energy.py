"""The energy pass: a worker rests, runs inferences and rests again, while the agent samples a power sensor."""

import array
import errno
import gc
import threading
import time
from pathlib import Path
from typing import Any

from .frames import CHUNK, Frames, OutcomeError
from .passes import run_pass
from .runtimes import load_runtime
from .sensors import Sensor, SensorError, open_sensor
from .system import clock_ns

GONE_S = 2.0  # of nothing but failing readings


class Sampler(threading.Thread):
    """Reads a sensor at a steady rate until `end`; the time of a sample is the middle of its reading."""

    def __init__(self, sensor: Sensor, interval_s: float) -> None:
        super().__init__(daemon=True)
        self.sensor = sensor
        self.interval_s = max(interval_s, sensor.least_interval_s)
        self.times = array.array("q")
        self.values = array.array("d")
        self.failed = {}  # type: dict[str, int]
        self.fault = ""
        self.ended = threading.Event()

    def run(self) -> None:
        due = sound = time.monotonic()
        while not self.ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.interval_s, time.monotonic())
            begin = clock_ns()
            try:
                value = sum(self.sensor.read())
            except SensorError as error:
                self.fault = str(error)
                return
            except (OSError, ValueError) as error:
                name = errno.errorcode.get(getattr(error, "errno", None) or 0, "unreadable")
                self.failed[name] = self.failed.get(name, 0) + 1
                if time.monotonic() - sound > max(GONE_S, 5 * self.interval_s):
                    self.fault = "the sensor has disappeared: every reading fails ({}: {})".format(name, error)
                    return
            else:
                self.times.append((begin + clock_ns()) // 2)
                self.values.append(value)
                sound = time.monotonic()

    def end(self) -> None:
        self.ended.set()
        self.join(10.0)


def rest(settle_s: float, idle_s: float, tail_s: float) -> "list[int]":
    """When the window of rest began and ended, with rest before and after it."""
    time.sleep(settle_s)
    begin = clock_ns()
    time.sleep(idle_s)
    end = clock_ns()
    time.sleep(tail_s)
    return [begin, end]


def load(run: "Any", settle_s: float, load_s: float, tail_s: float, blocks: int) -> "list[list[int]]":
    """Marks (ns, runs so far) that part the window into blocks of whole runs, with runs before and after it."""

    def run_for(seconds: float) -> int:
        runs, end = 0, clock_ns() + int(seconds * 1e9)
        while not runs or clock_ns() < end:
            run()
            runs += 1
        return runs

    run_for(settle_s)
    marks, runs = [[clock_ns(), 0]], 0
    for _ in range(blocks):
        runs += run_for(load_s / blocks)
        marks.append([clock_ns(), runs])
    run_for(tail_s)
    return marks


def energy_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """The worker's part: the model is loaded all the time, so that the rest before and after differs by runs alone."""
    runtime = load_runtime(task)
    run = runtime.load(task)
    for _ in range(task["warmup_runs"]):
        run()
    return dict(phases(run, task["energy"]), runtime=runtime.name, version=runtime.version)


def phases(run: "Any", plan: "dict[str, Any]") -> "dict[str, Any]":
    """Rest, load and rest again; the times are those of `clock_ns`."""
    settle_s, window_s, tail_s = plan["settle_s"], plan["window_s"], plan["tail_s"]
    gc.collect()
    gc.disable()
    before = rest(settle_s, window_s, tail_s)
    marks = load(run, settle_s, window_s, tail_s, plan["blocks"])
    after = rest(settle_s, window_s, tail_s)
    gc.enable()
    return {"before": before, "marks": marks, "after": after}


def choose_sensor(specs: "list[dict[str, Any]]", root: "Path | str") -> "tuple[int, Sensor]":
    """The first of the profile's sensors that can be read; raises SensorError with what is wrong with each."""
    reasons = []
    for index, spec in enumerate(specs):
        try:
            return index, open_sensor(spec, Path(root))
        except SensorError as error:
            reasons.append("{}: {}".format(spec["name"], error))
    raise SensorError("; ".join(reasons))


def energy_pass(
    task: "dict[str, Any]", deadline: float, beat: "Any", root: "Path | str"
) -> "tuple[dict[str, Any], list[dict[str, Any]]]":
    """What the worker and the sensor told, and the samples in chunks (ns; W or J) to be sent in `power` frames.

    Without sensors a meter on the host reads. `missing` says why there is nothing to compute an energy from; a worker
    that fails ends the measurement (OutcomeError).
    """
    plan = task["energy"]
    sampler = None
    told = {}  # type: dict[str, Any]

    def watch() -> None:
        beat()
        if sampler is not None and sampler.fault:
            raise SensorError(sampler.fault)

    try:
        if plan["sensors"]:
            index, sensor = choose_sensor(plan["sensors"], root)
            sampler = Sampler(sensor, plan["interval_s"])
            interval_s = sampler.interval_s
            told.update(sensor=index, quantity=sensor.quantity, rails=sensor.rails, interval_s=interval_s)
            window_s = max(plan["min_s"], 1.1 * plan["min_samples"] * interval_s)
            plan = dict(plan, window_s=window_s, tail_s=2 * interval_s)
            sampler.start()
        told.update(run_pass(dict(task, task="energy", energy=plan), deadline, watch).result())
        watch()
    except SensorError as error:
        return dict(told, missing=str(error)), []
    except OutcomeError as failure:
        if failure.outcome == "NO_FIGURE":
            return dict(told, missing=str(failure)), []
        if failure.outcome != "TIMEOUT":
            raise
        return dict(told, missing="TIMEOUT: {}; raise the policy's deadline".format(failure)), []
    finally:
        if sampler is not None:
            sampler.end()
    if sampler is None:
        return told, []
    parts = [slice(first, first + CHUNK) for first in range(0, len(sampler.times), CHUNK)]
    chunks = [{"ns": sampler.times[part].tolist(), "values": sampler.values[part].tolist()} for part in parts]
    return dict(told, failed=sampler.failed), chunks
