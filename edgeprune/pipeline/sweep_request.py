"""What a sweep is asked for, as it is written on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.records.budget import Limit

__all__ = ["Request", "parse_over", "parse_ratios"]

_MOST = 100  # points: a mistyped step is no reason to measure for days
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*(\D*)")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: limits on one figure, or, with `figure` None, shares of the channels that go."""

    figure: str | None
    limits: tuple[Limit, ...] = ()
    ratios: tuple[float, ...] = ()
    finetune: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the journal."""
        texts = [limit.text for limit in self.limits]
        return {"figure": self.figure, "limits": texts, "ratios": list(self.ratios), "finetune": self.finetune}


def parse_over(text: str, *, finetune: bool = False) -> Request:
    """ "latency=90%,80%,...,30%", "latency.p95=10ms,8ms", "size=1MB,500kB"; a share is of the dense model's figure.

    An ellipsis goes on in the step of the two before it. Raises UsageError.
    """
    name, equals, values = text.partition("=")
    figure = {"latency": "latency.p50", "memory": "peak_memory"}.get(name.strip(), name.strip())
    if not equals or not values.strip():
        raise UsageError(f"--over {text!r} names no values", hint="write it like latency=90%,70%,50%")
    if figure.startswith("accuracy"):
        raise UsageError("accuracy is what is looked for", hint="sweep over latency, peak_memory, size or energy")
    entries = _expanded([value.strip() for value in values.split(",")], text)
    try:
        limits = tuple(
            Limit.parse(figure, f"{entry} of dense" if re.fullmatch(r"[\d.]+\s*%", entry) else entry)
            for entry in entries
        )
    except KeyError:
        hint = "figures: latency (p50), latency.p95, peak_memory, size, energy"
        raise UsageError(f"--over: there is no figure {name.strip()!r}", hint=hint) from None
    return Request(figure, limits, finetune=finetune)


def parse_ratios(text: str, *, finetune: bool = False) -> Request:
    """ "0.1,0.3,0.5": shares of the channels of every layer; raises UsageError."""
    hint = "write shares between 0 and 1, like 0.1,0.3,0.5"
    try:
        ratios = tuple(float(value) for value in text.split(","))
    except ValueError as error:
        raise UsageError(f"--ratios {text!r}: {error}", hint=hint) from error
    if not all(0 < ratio < 1 for ratio in ratios):
        raise UsageError(f"--ratios {text!r}: a ratio is a share of the channels that go", hint=hint)
    return Request(None, ratios=ratios, finetune=finetune)


def _expanded(entries: list[str], text: str) -> list[str]:
    """With every ellipsis filled in."""
    found: list[str] = []
    for place, entry in enumerate(entries):
        if entry != "...":
            found.append(entry)
            continue
        numbers = [_NUMBER.fullmatch(part) for part in (*found[-2:], *entries[place + 1 : place + 2])]
        if len(numbers) < 3 or len({number[2] for number in numbers if number}) != 1 or not all(numbers):
            hint = "it stands between two values and a last one of the same unit: 90%,80%,...,30%"
            raise UsageError(f"--over {text!r}: an ellipsis that says nothing", hint=hint)
        first, second, last = (float(number[1]) for number in numbers if number)
        unit, step = numbers[0][2] if numbers[0] else "", second - first
        count = 0 if step == 0 else (last - second) / step
        if count < 1 or count > _MOST or abs(count - round(count)) > 1e-6:
            raise UsageError(
                f"--over {text!r}: steps of {step:g}{unit} do not lead from {second:g}{unit} to {last:g}{unit}"
            )
        found += [f"{second + step * number:g}{unit}" for number in range(1, round(count))]
    return found
