"""The dense model measured again during a run: does the device still measure as it did at the beginning?

A drift is told, and corrected by nothing: no figure is scaled by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.records.measurement import Measurement

__all__ = ["EVERY_S", "EVERY_TRIALS", "FIRST_TRIALS", "LEAST_DRIFT", "Drift", "Sentinel", "drift"]

FIRST_TRIALS = 1  # soon: limits that are relative to the dense model stand on its first measurement
EVERY_TRIALS = 10
EVERY_S = 900.0
LEAST_DRIFT = 0.05  # medians of fresh processes on an idle device differ by some per cent


@dataclass(frozen=True, slots=True)
class Drift:
    """The dense model's median now and at first, in ms; `ratio` now over then, with the bounds that the ends of both
    95 % intervals leave. `drifted` where these bounds exclude 1 and the ratio is 5 % or more from it.
    """

    first_ms: float
    now_ms: float
    ratio: float
    lower: float
    upper: float
    drifted: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"the dense model's median was {self.first_ms:.4g} ms at first and is {self.now_ms:.4g} ms now"


class Sentinel:
    """Says when the dense model is due again: soon, then after so many trials or so much time, and when resumed."""

    def __init__(
        self,
        every_trials: int = EVERY_TRIALS,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        first_trials: int = FIRST_TRIALS,
    ) -> None:
        self._every_trials = every_trials
        self._every_s = every_s
        self._clock = clock
        self._first_trials = first_trials
        self._measured = 0
        self._trials = 0
        self._last: float | None = None

    def dense_measured(self) -> None:
        """Counting begins anew."""
        self._trials, self._last = 0, self._clock()
        self._measured += 1

    def is_due(self) -> bool:
        """Call it once after each measured trial."""
        self._trials += 1
        if self._last is None:
            return True  # resumed: who knows what happened to the device
        trials = self._first_trials if self._measured == 1 else self._every_trials
        return self._trials >= min(trials, self._every_trials) or self._clock() - self._last >= self._every_s


def drift(first: Measurement, now: Measurement) -> Drift | None:
    """None where the median is not known both times."""
    then, again = first.latency, now.latency
    if then is None or again is None or not {"p50"} <= then.lower_ms.keys() & again.lower_ms.keys():
        return None
    before, after = then.percentile_ms["p50"], again.percentile_ms["p50"]
    lower = again.lower_ms["p50"] / then.upper_ms["p50"]
    upper = again.upper_ms["p50"] / then.lower_ms["p50"]
    ratio = after / before
    drifted = not lower <= 1 <= upper and abs(ratio - 1) >= LEAST_DRIFT
    return Drift(before, after, ratio, lower, upper, drifted)
