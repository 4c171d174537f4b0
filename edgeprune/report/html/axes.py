"""Scales of the charts: where a value lies, in per cent of the width or in pixels of the height, and round ticks.

Charts fill whatever width there is: across they are in per cent, so that text keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "linear", "logarithmic"]


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` on positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position; values outside lie on the edge."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, self._within(value)))
        return self.start + (self.end - self.start) * ((value - low) / (high - low))

    def _within(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values on the scale, at most so many."""
        found = _log_ticks(self.low, self.high, most) if self.log else []
        return found if len(found) > 1 else _ticks(self.low, self.high, most)

    def edges(self, count: int) -> list[float]:
        """The bounds of so many bins of equal length on the scale."""
        if self.log:
            factor = math.log(self.high / self.low)
            return [self.low * math.exp(factor * i / count) for i in range(count + 1)]
        return [self.low + (self.high - self.low) * i / count for i in range(count + 1)]


def linear(values: Sequence[float], start: float, end: float, *, zero: bool = False, pad: float = 0.06) -> Scale:
    """A scale that holds all values with some room; from zero where `zero`, or where they come near it."""
    low, high = min(values), max(values)
    room = (high - low) * pad or abs(high) * 0.05 or 1.0
    if zero or 0 <= low < 0.35 * high:
        return Scale(0.0, high + room, start, end)
    return Scale(low - room, high + room, start, end)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """A logarithmic scale where the values span more than a factor of three, else a linear one; both positive."""
    if high / low > 3:
        return Scale(low * 0.95, high * 1.05, start, end, log=True)
    room = (high - low) * 0.05 or high * 0.05
    return Scale(max(low - room, 0.0), high + room, start, end)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of the finest round step that gives no more than `most`."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (factor * power for factor in (1, 2, 2.5, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """The finest of 1-2-5, 1-3 and whole decades that gives no more than `most`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [value for value in found if low <= value <= high]
        if len(inside) <= most:
            return inside
    return inside[:: math.ceil(len(inside) / most)]
