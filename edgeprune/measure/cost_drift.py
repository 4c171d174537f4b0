"""Operators timed on different days are put into one cost table only where the device was as fast.

A governor, heat or a neighbour make all operators slower alike: within one table that would look like a property of
those that were timed then. A few of each earlier visit to the device are timed once more to tell.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from edgeprune.records.operators import OperatorTiming

__all__ = ["outdated", "sampled", "speed", "visits"]

_APART_S = 600.0  # without a timing, from which on another visit begins: conditions last for minutes
_SAMPLED = 5  # operators of a visit that are timed once more
_DRIFT = 0.05  # by which a visit's speed may differ


def visits(timed_at: Mapping[str, float], now: float) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The keys by the visit that they were timed in (Unix time, s): the earlier ones, and the one still going on."""
    found: list[list[str]] = []
    last = float("-inf")
    for key in sorted(timed_at, key=lambda key: timed_at[key]):
        if timed_at[key] - last > _APART_S:
            found.append([])
        found[-1].append(key)
        last = timed_at[key]
    current = found.pop() if found and now - last <= _APART_S else []
    return [tuple(keys) for keys in found], tuple(current)


def sampled(keys: Sequence[str], timings: Mapping[str, OperatorTiming]) -> tuple[str, ...]:
    """The longest of a visit's operators: they jitter least."""
    return tuple(sorted(keys, key=lambda key: -(timings[key].run_ns or 0.0))[:_SAMPLED])


def speed(keys: Sequence[str], then: Mapping[str, OperatorTiming], now: Mapping[str, OperatorTiming]) -> float:
    """How long a visit's operators take now, as a ratio; 1 where nothing tells."""
    ratios = [
        new / old
        for key in keys
        if key in now and now[key].stable and (old := then[key].run_ns) and (new := now[key].run_ns)
    ]
    return statistics.median(ratios) if ratios else 1.0


def outdated(speeds: Sequence[float], *, current: bool) -> list[bool]:
    """Of each earlier visit, by its `speed`, whether it must be timed again; `current` says that others are of now.

    Visits that agree with one another are left: what they all have in common is no operator's own.
    """
    every = [*speeds, *([1.0] if current else [])]
    if not every or max(every) <= min(every) * (1 + _DRIFT):
        return [False] * len(speeds)
    return [abs(one - 1) > _DRIFT for one in speeds]
