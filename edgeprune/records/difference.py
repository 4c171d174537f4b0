"""Two models side by side: their figures with what their intervals say of the change, and what else differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.records import codec
from edgeprune.records.figures import Figure

__all__ = ["LEAST_CHANGE", "SCHEMA", "Difference", "FigureChange", "Pair", "compared", "pairs"]

SCHEMA = "edgeprune.difference/1"
# Of what is measured at two times, beyond its intervals: medians of fresh processes differ by some per cent.
LEAST_CHANGE = {"latency": 0.05, "peak_memory": 0.01}

_EXACT = ("size", "accuracy")  # the same file, and the same network on the same data, give the same
_WORDS = {"latency": ("faster", "slower"), "accuracy": ("lower", "higher")}


@dataclass(frozen=True, slots=True)
class FigureChange:
    """One figure of both. `change` is B over A, of accuracy B less A; `interval` its outermost ends.

    `verdict` is "no difference", or what B is; where nothing can be told, "" and `reason`.
    """

    name: str
    a: Figure | None
    b: Figure | None
    change: float | None = None
    interval: tuple[float, float] | None = None
    verdict: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """What differs under a name; None where one of the two does not have it."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """B against A. `widths` are outputs per layer, or kept units per group where the layers are not known (`per`)."""

    a: str
    b: str
    figures: tuple[FigureChange, ...]
    artifact: tuple[Pair, ...] = ()  # file, sha256, params, macs
    candidate: tuple[Pair, ...] = ()  # id, dropped blocks
    widths: tuple[Pair, ...] = ()
    per: str = "layer"
    inputs: tuple[Pair, ...] = ()
    device: tuple[Pair, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data with a schema version."""
        parts = ("artifact", "candidate", "widths", "inputs", "device")
        return {
            "schema": SCHEMA,
            "a": self.a,
            "b": self.b,
            "figures": [
                {
                    "name": entry.name,
                    **codec.figures_to_json({k: v for k, v in (("a", entry.a), ("b", entry.b)) if v is not None}),
                    "change": entry.change,
                    "interval": None if entry.interval is None else list(entry.interval),
                    "verdict": entry.verdict,
                    "reason": entry.reason,
                }
                for entry in self.figures
            ],
            **{part: [{"name": p.name, "a": p.a, "b": p.b} for p in getattr(self, part)] for part in parts},
            "per": self.per,
            "notes": list(self.notes),
        }


def compared(
    name: str,
    a: tuple[Figure | None, float | None],
    b: tuple[Figure | None, float | None],
    *,
    comparable: bool = True,
) -> FigureChange:
    """A figure of both with the lower end of its interval; not `comparable` are figures of different devices."""
    (before, low_a), (after, low_b) = a, b
    if before is None or after is None or before.value is None or after.value is None:
        return FigureChange(name, before, after, reason="not in both")
    less, more = _WORDS.get(name.partition(".")[0], ("less", "more"))
    if name == "accuracy":
        change = after.value - before.value
        verdict = "no difference" if change == 0 else less if change < 0 else more
        return FigureChange(name, before, after, change, verdict=verdict)
    if before.value <= 0:
        return FigureChange(name, before, after, reason="no ratio to what is not more than 0")
    change = after.value / before.value
    if name in _EXACT:
        verdict = "no difference" if change == 1 else less if change < 1 else more
        return FigureChange(name, before, after, change, verdict=verdict)
    if not comparable:
        return FigureChange(name, before, after, change, reason="measured on other devices")
    if low_a is None or low_b is None or before.upper is None or after.upper is None or low_a <= 0:
        return FigureChange(name, before, after, change, reason="an interval is not known")
    interval = low_b / before.upper, after.upper / low_a
    least = LEAST_CHANGE.get(name.partition(".")[0], 0.0)
    same = interval[0] <= 1 <= interval[1] or abs(change - 1) < least
    verdict = "no difference" if same else less if change < 1 else more
    return FigureChange(name, before, after, change, interval, verdict)


def pairs(a: Mapping[str, Any], b: Mapping[str, Any], *, common: bool = False) -> tuple[Pair, ...]:
    """What differs, in order; with `common` only of what both have."""
    names = [name for name in {**a, **b} if not common or (name in a and name in b)]
    return tuple(Pair(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))
