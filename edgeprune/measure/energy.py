"""Energy per inference from a sensor's samples and the worker's marks; what is doubtful is missing, with its reason.

Power is integrated by trapezoids over the device's own clock, a counter of joules is read off at both ends, so
energy per inference is exact for any course of power that the samples follow. What the device draws idle, with the
model loaded, is measured before and after; the two must agree. The intervals are Student's, over blocks of whole runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.records.measurement import Energy
from edgeprune.records.profile import DEVICE_SENSORS

if TYPE_CHECKING:
    from edgeprune.records.profile import MeasurementPolicy, PowerSensor

__all__ = ["IDLE_SHARE", "NotMeasuredError", "Trace", "add_up", "energy", "integrate", "plan"]

IDLE_SHARE = 0.05  # by which idle before and after may differ
BLOCKS = 10
_TOTALS = ("VDD_IN", "POM_5V_IN", "VDD_5V_IN", "5V_IN", "SYS_VIN")  # INA3221 of Jetson modules: they feed the others
_FAILED_SHARE = 0.05  # of the readings
_GAP_INTERVALS, _GAP_SHARE = 5, 0.05  # the longest gap between samples, in sampling intervals or of the window
_LEAST = 10  # readings of a value, to say how often it repeats itself
_CHANCE = 1e-4  # of so long a run of equal readings, where the sensor is sound
_ACROSS = 5  # equal readings on both sides of the load's beginning or end

Array = NDArray[np.float64]


class NotMeasuredError(Exception):
    """Why there is no energy figure; becomes `missing["energy"]`."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Samples in the device's time (ns): W where `quantity` is "power", J since the first one for "energy"."""

    ns: Sequence[int]
    values: Sequence[float]
    quantity: str
    interval_s: float
    failed: Mapping[str, int]


def add_up(sensor: PowerSensor) -> tuple[str, ...]:
    """The rails whose sum is the figure: the total alone where there is one, so that no part is counted twice."""
    if sensor.total:
        return (sensor.total,)
    totals = [rail for rail in sensor.rails if rail in _TOTALS]
    return (totals[0],) if totals else sensor.rails


def plan(sensors: Sequence[PowerSensor], policy: MeasurementPolicy) -> dict[str, Any]:
    """What the agent is asked for: sensors in order of preference, times, rate. No sensors: a meter on the host."""
    interval_s = 1 / policy.energy_rate_hz
    window_s = max(policy.energy_min_s, 1.1 * policy.energy_min_samples * interval_s)
    slow_s = max([window_s, *(1.1 * policy.energy_min_samples for sensor in sensors if sensor.kind == "battery")])
    return {
        "sensors": [
            {"name": sensor.name, "kind": sensor.kind, "rails": list(add_up(sensor)), "source": sensor.source}
            for sensor in sensors
            if sensor.kind in DEVICE_SENSORS
        ],
        "interval_s": interval_s,
        "min_s": policy.energy_min_s,
        "min_samples": policy.energy_min_samples,
        "settle_s": policy.energy_settle_s,
        "window_s": window_s,
        "tail_s": 2 * interval_s,
        "blocks": BLOCKS,
        "deadline_s": policy.deadline_s + 3 * (slow_s + policy.energy_settle_s),
    }


def integrate(times_s: Array, values: Array, quantity: str, begin_s: float, end_s: float) -> float:
    """Joules from `begin_s` to `end_s`, which lie within the samples; between samples the course is linear."""
    at_begin, at_end = np.interp([begin_s, end_s], times_s, values)
    if quantity == "energy":
        return float(at_end - at_begin)
    inside = (times_s > begin_s) & (times_s < end_s)
    times = np.concatenate([[begin_s], times_s[inside], [end_s]])
    watts = np.concatenate([[at_begin], values[inside], [at_end]])
    return float(np.sum((watts[1:] + watts[:-1]) / 2 * np.diff(times)))


def energy(trace: Trace, phases: Mapping[str, Any], sensor: PowerSensor, policy: MeasurementPolicy) -> Energy:
    """The record. `phases` are the worker's: "before" and "after" [begin, end], "marks" [[ns, runs], ...].

    Raises NotMeasuredError where the samples do not prove a figure.
    """
    marks = phases["marks"]
    if len(trace.ns) < 2:
        raise NotMeasuredError(f"{sensor.name}: {len(trace.ns)} readings arrived{_failures(trace.failed)}")
    origin = trace.ns[0]
    times = (np.asarray(trace.ns, dtype=np.int64) - origin) / 1e9
    values = np.asarray(trace.values, dtype=np.float64)
    windows = {
        name: ((begin - origin) / 1e9, (end - origin) / 1e9)
        for name, (begin, end) in (
            ("before", phases["before"]),
            ("load", (marks[0][0], marks[-1][0])),
            ("after", phases["after"]),
        )
    }
    watts = _watts(times, values, trace.quantity)
    for name, window in windows.items():
        if reason := _incomplete(times, window, trace, policy):
            raise NotMeasuredError(f"{sensor.name}: {_WHEN[name]}: {reason}{_failures(trace.failed)}")
    _check_failures(trace, sensor)
    _check_stuck(times, values, trace.quantity, windows, sensor)
    _check_updates(times, values, windows["load"], sensor, policy)

    def power(begin: float, end: float) -> float:
        return integrate(times, values, trace.quantity, begin, end) / (end - begin)

    mean = {name: power(*window) for name, window in windows.items()}
    for name, value in mean.items():
        if not math.isfinite(value) or value <= 0:
            raise NotMeasuredError(f"{sensor.name}: a mean power of {value:g} W {_WHEN[name]} cannot be")
    if watts.min() < -0.1 * max(mean.values()):
        raise NotMeasuredError(f"{sensor.name}: a power of {watts.min():g} W was read: a current flows backwards")
    idle = (mean["before"] + mean["after"]) / 2
    change = abs(mean["after"] - mean["before"]) / idle
    if change > IDLE_SHARE:
        raise NotMeasuredError(
            f"{sensor.name}: idle power was {mean['before']:.4g} W before and {mean['after']:.4g} W after "
            f"({change:.1%} apart, at most {IDLE_SHARE:.0%}): let the device settle, end what else runs on it"
        )
    runs = marks[-1][1]
    begin, end = windows["load"]
    seconds = end - begin
    edges = [((ns - origin) / 1e9, done) for ns, done in marks]
    per_run = np.array(
        [integrate(times, values, trace.quantity, a, b) / (n - m) for (a, m), (b, n) in itertools.pairwise(edges)]
    )
    span_per_run = np.array([(b - a) / (n - m) for (a, m), (b, n) in itertools.pairwise(edges)])
    gross = mean["load"] * seconds / runs
    net = gross - idle * seconds / runs
    if net <= 0:
        raise NotMeasuredError(
            f"{sensor.name}: {mean['load']:.4g} W under load cannot be told from {idle:.4g} W idle: "
            "the sensor does not see what runs the model, or is too coarse"
        )
    idle_half = max(
        abs(mean["after"] - mean["before"]) / 2,
        *(_half_width(_parts(power, windows[name])) for name in ("before", "after")),
    )
    gross_half = _half_width(per_run)
    net_half = math.hypot(_half_width(per_run - idle * span_per_run), idle_half * seconds / runs)
    return Energy(
        gross_mj=gross * 1e3,
        net_mj=net * 1e3,
        sensor=sensor.name,
        scope=sensor.scope,
        samples=int(np.count_nonzero((times >= begin) & (times <= end))),
        rails=tuple(phases.get("rails") or add_up(sensor)),
        note=sensor.note,
        rate_hz=(len(times) - 1) / (times[-1] - times[0]),
        runs=runs,
        seconds=seconds,
        latency_ms=seconds / runs * 1e3,
        idle_w=idle,
        idle_change=change,
        gross_lower_mj=(gross - gross_half) * 1e3,
        gross_upper_mj=(gross + gross_half) * 1e3,
        net_lower_mj=(net - net_half) * 1e3,
        net_upper_mj=(net + net_half) * 1e3,
        failed=dict(trace.failed),
        quantity=trace.quantity,
        raw=tuple(zip(times.tolist(), values.tolist(), strict=True)),
        windows=windows,
    )


_WHEN = {"before": "idle before the load", "load": "under load", "after": "idle after the load"}


def _incomplete(times: Array, window: tuple[float, float], trace: Trace, policy: MeasurementPolicy) -> str:
    """Why the samples do not cover a window, or ""."""
    begin, end = window
    if times[0] > begin or times[-1] < end:
        return f"the readings go from {times[0]:.1f} to {times[-1]:.1f} s, the window from {begin:.1f} to {end:.1f} s"
    inside = times[(times >= begin) & (times <= end)]
    if end - begin < policy.energy_min_s * 0.999 or inside.size < policy.energy_min_samples:
        least = f"{policy.energy_min_samples} in {policy.energy_min_s:g} s"
        return f"{inside.size} readings in {end - begin:.1f} s, at least {least} are needed"
    gap = float(np.max(np.diff(np.concatenate([[begin], inside, [end]]))))
    longest = max(_GAP_INTERVALS * trace.interval_s, _GAP_SHARE * (end - begin))
    return f"no reading for {gap:.2f} s (at most {longest:.2f} s)" if gap > longest else ""


def _check_failures(trace: Trace, sensor: PowerSensor) -> None:
    failed = sum(trace.failed.values())
    if failed > _FAILED_SHARE * (failed + len(trace.ns)):
        raise NotMeasuredError(f"{sensor.name}: too many readings failed{_failures(trace.failed)}")


def _check_stuck(
    times: Array, values: Array, quantity: str, windows: Mapping[str, tuple[float, float]], sensor: PowerSensor
) -> None:
    """Refuse a reading that stays the same where it cannot: when the load begins or ends, or by all chance.

    A coarse sensor repeats itself; how often it does elsewhere says how likely so long a run is.
    """
    same = np.diff(values) == 0
    longest, start = _longest_run(same)
    if longest < 2 or longest == same.size:
        if longest == same.size:
            raise NotMeasuredError(_stuck(sensor, values[0], times[-1] - times[0], quantity, "all the time"))
        return
    first, last = times[start], times[start + longest]
    run = times[start : start + longest + 1]
    for edge_begin, edge_end in ((windows["before"][1], windows["load"][0]), (windows["load"][1], windows["after"][0])):
        if quantity == "power" and min((run < edge_begin).sum(), (run > edge_end).sum()) >= _ACROSS:
            raise NotMeasuredError(_stuck(sensor, values[start], last - first, quantity, "while the load changed"))
    outside = np.ones(same.size, dtype=bool)
    outside[start : start + longest] = False
    here = outside & (values[:-1] == values[start])  # a coarse sensor rests on some values more often than on others
    share = max(float(same[chosen].mean()) for chosen in (outside, here) if chosen.sum() >= _LEAST or chosen is outside)
    share = max(share, 1 / same.size)
    if share < 1 and same.size * share**longest < _CHANCE:
        raise NotMeasuredError(_stuck(sensor, values[start], last - first, quantity, "unlike the rest of the time"))


def _check_updates(
    times: Array, values: Array, window: tuple[float, float], sensor: PowerSensor, policy: MeasurementPolicy
) -> None:
    """Refuse a sensor that is read faster than it renews its value: the readings between say nothing new.

    A coarse sensor repeats itself as well, but also changes soon again, now and then; a slow one never does. So the
    short gaps between changes, a fifth aside, are compared with how many there would be between changes at random.
    """
    changes = np.flatnonzero(np.diff(values) != 0)
    if changes.size < 2:
        return
    from scipy import special

    gaps = np.sort(np.diff(changes))
    aside = gaps.size // 5
    shorter = 1 - (1 - changes.size / (values.size - 1)) ** float(gaps[aside] - 1)
    chance = float(special.bdtr(aside, gaps.size, shorter))
    interval_s = float(np.median(np.diff(times[1:][changes])))
    updates = int((window[1] - window[0]) / interval_s)
    if chance < _CHANCE and updates < policy.energy_min_samples:
        raise NotMeasuredError(
            f"{sensor.name}: it renews its value only every {interval_s:.2g} s: {updates} values under load, at least "
            f"{policy.energy_min_samples} are needed: raise energy_min_time in the measurement policy"
        )


def _stuck(sensor: PowerSensor, value: float, seconds: float, quantity: str, how: str) -> str:
    unit = "W" if quantity == "power" else "J"
    return f"{sensor.name}: the sensor is stuck: {value:.6g} {unit} for {seconds:.1f} s, {how}"


def _longest_run(same: NDArray[np.bool_]) -> tuple[int, int]:
    """Length and start of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    if not lengths.size:
        return 0, 0
    best = int(np.argmax(lengths))
    return int(lengths[best]), int(starts[best])


def _watts(times: Array, values: Array, quantity: str) -> Array:
    return values if quantity == "power" else np.diff(values) / np.diff(times)


def _parts(power: Any, window: tuple[float, float]) -> Array:
    edges = np.linspace(*window, BLOCKS + 1)
    return np.array([power(begin, end) for begin, end in itertools.pairwise(edges)])


def _half_width(values: Array) -> float:
    """Of the 95 % interval of the mean (Student)."""
    from scipy import special

    student = float(special.stdtrit(values.size - 1, 0.975))
    return student * float(values.std(ddof=1)) / math.sqrt(values.size)


def _failures(failed: Mapping[str, int]) -> str:
    told = ", ".join(f"{count} times {name}" for name, count in sorted(failed.items()))
    return f" (readings failed: {told})" if told else ""
