"""A sustained measurement in windows of time: what the device does once it is warm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.records.measurement import Window

__all__ = ["sustained_warnings", "windows"]

_WINDOW_S = 10.0
_LEAST_P95 = 130  # runs; as for a whole measurement
_SLOWER = 0.03  # of the median, from the first window to the last, that is said


def windows(samples_ns: Sequence[int], trace: Sequence[Mapping[str, Any]], pass_s: float) -> tuple[Window, ...]:
    """At least two windows of equal time, of about 10 s. `trace` is what the agent saw, in seconds since the start of
    the pass, which took `pass_s` in all and ended with the last sample.
    """
    durations = np.asarray(samples_ns, np.int64)
    whole_ns = int(durations.sum())
    total = whole_ns / 1e9
    count = max(2, round(total / _WINDOW_S))
    of_window = np.minimum((np.cumsum(durations) - durations) * count // whole_ns, count - 1)
    seen = [(float(entry["at_s"]) - (pass_s - total), entry) for entry in trace]
    found = []
    for number in range(count):
        runs = durations[of_window == number] / 1e6
        if not len(runs):
            continue  # one run lasted longer than the window
        begin, end = total * number / count, total * (number + 1) / count
        entries = [entry for at, entry in seen if begin <= at < end]
        degrees = [entry["temperature_c"] for entry in entries if entry["temperature_c"] is not None]
        clocks = [entry["frequency_khz"] for entry in entries if entry["frequency_khz"] is not None]
        found.append(
            Window(
                start_s=begin,
                seconds=end - begin,
                runs=len(runs),
                p50_ms=float(np.median(runs)),
                p95_ms=float(np.quantile(runs, 0.95)) if len(runs) >= _LEAST_P95 else None,
                temperature_c=max(degrees, default=None),
                frequency_khz=min(clocks, default=None),
                throttled=next((str(entry["throttled"]) for entry in entries if entry["throttled"]), ""),
            )
        )
    return tuple(found)


def sustained_warnings(found: Sequence[Window]) -> list[str]:
    """Where the device throttled, and how much slower it was in the end."""
    warnings = []
    first, last = found[0], found[-1]
    change = last.p50_ms / first.p50_ms - 1
    if change > _SLOWER:
        warnings.append(
            f"under load the median rose by {change:.1%}, from {first.p50_ms:.4g} ms to {last.p50_ms:.4g} ms in the end"
        )
    slowed = next((window for window in found if window.throttled), None)
    if slowed is not None:
        warnings.append(f"the device throttled from {slowed.start_s:.0f} s of load on: {slowed.throttled}")
    return warnings
