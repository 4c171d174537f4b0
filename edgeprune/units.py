"""Quantities with units: "30ms", "8MiB", "12mJ", "1.0pp", "60% of dense"; ambiguous ones are refused.

Sizes: kB, MB, GB are powers of 1000; KiB, MiB, GiB are powers of 1024 (IEC 80000-13); `KB`, `K`, `M` are
refused with a question. A limit may be relative to the dense model: `"60% of dense"`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgeprune.errors import UnitError

__all__ = [
    "Drop",
    "Quantity",
    "format_duration",
    "format_energy",
    "format_size",
    "parse_drop",
    "parse_duration",
    "parse_energy",
    "parse_quantity",
    "parse_share",
    "parse_size",
]

Kind = Literal["duration", "size", "energy"]

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*$")
_OF_DENSE = re.compile(r"^%\s+of\s+dense$")

# Factors to the unit that records carry: milliseconds, bytes, millijoules.
_UNITS: dict[Kind, dict[str, float]] = {
    "duration": {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4},
    "size": {
        "B": 1,
        "kB": 1000,
        "MB": 1000**2,
        "GB": 1000**3,
        "KiB": 1024,
        "MiB": 1024**2,
        "GiB": 1024**3,
    },
    "energy": {"nJ": 1e-6, "uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "J": 1e3},
}
_EXAMPLES: dict[Kind, str] = {"duration": "30ms", "size": "4MB or 4MiB", "energy": "12mJ"}
_AMBIGUOUS = {"KB": "kB", "K": "kB", "k": "kB", "Kb": "kB", "kb": "kB", "M": "MB", "m": "MB", "Mb": "MB", "mb": "MB",
              "mB": "MB", "G": "GB", "g": "GB", "Gb": "GB", "gb": "GB", "kib": "KiB", "mib": "MiB", "gib": "GiB"}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A limit: `value` in ms, bytes or mJ, or, where `relative`, a factor of the dense model's figure."""

    value: float
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """An allowed loss of accuracy: `value` in percentage points (`pp`) or in percent of the dense value (`%`)."""

    value: float
    relative: bool

    def allowed(self, dense: float) -> float:
        """The lowest metric that is still within the limit; `dense` and the result as fractions (0.915)."""
        return dense * (1 - self.value / 100) if self.relative else dense - self.value / 100


def parse_duration(text: str) -> float:
    """Milliseconds of "30ms", "250us", "1.5s"; raises UnitError."""
    return _absolute(text, "duration")


def parse_size(text: str) -> int:
    """Bytes of "4MB", "8MiB", "512B"; raises UnitError."""
    return round(_absolute(text, "size"))


def parse_energy(text: str) -> float:
    """Millijoules of "12mJ"; raises UnitError."""
    return _absolute(text, "energy")


def parse_quantity(text: str, kind: Kind) -> Quantity:
    """An absolute quantity of the kind, or one relative to the dense model ("60% of dense"); raises UnitError."""
    number, unit = _split(text, kind)
    if _OF_DENSE.match(unit):
        return Quantity(_positive(number, text) / 100, relative=True)
    if unit == "%":
        raise UnitError(f"{text!r}: percent of what?", hint=f'write "{number:g}% of dense", or {_EXAMPLES[kind]}')
    return Quantity(_absolute(text, kind))


def parse_share(text: str) -> float:
    """The fraction that "35%" stands for (0.35); raises UnitError."""
    number, unit = _split(text, None)
    if unit != "%":
        raise UnitError(f"{text!r} is not a percentage", hint='write it like "35%"')
    return number / 100


def parse_drop(text: str) -> Drop:
    """An allowed loss of accuracy: "1.0pp" (absolute, percentage points) or "2%" (of the dense value); raises UnitError."""
    number, unit = _split(text, None)
    if unit not in ("pp", "%"):
        raise UnitError(
            f"{text!r}: a drop of accuracy needs pp or %",
            hint='"1.0pp" is one percentage point, "1.0%" is one percent of the dense value',
        )
    if not 0 <= number <= 100:
        raise UnitError(f"{text!r}: a drop of accuracy lies between 0 and 100")
    return Drop(number, relative=unit == "%")


def format_duration(ms: float) -> str:
    """ "0.412 ms", "31.0 us", "1.250 s"."""
    if abs(ms) >= 1000:
        return f"{ms / 1000:.3f} s"
    return f"{ms:.3f} ms" if abs(ms) >= 0.1 else f"{ms * 1000:.1f} us"


def format_size(size: float) -> str:
    """Decimal units: "412 B", "3.21 MB"."""
    for factor, name in ((1000**3, "GB"), (1000**2, "MB"), (1000, "kB")):
        if abs(size) >= factor:
            return f"{size / factor:.2f} {name}"
    return f"{size:.0f} B"


def format_energy(mj: float) -> str:
    """ "12.3 mJ", "1.20 J"."""
    return f"{mj / 1000:.2f} J" if abs(mj) >= 1000 else f"{mj:.3g} mJ"


def _absolute(text: str, kind: Kind) -> float:
    number, unit = _split(text, kind)
    units = _UNITS[kind]
    if unit in units:
        return _positive(number, text) * units[unit]
    if kind == "size" and unit in _AMBIGUOUS:
        decimal = _AMBIGUOUS[unit]
        binary = decimal[0].upper() + "iB" if not decimal.endswith("iB") else decimal
        raise UnitError(
            f"{text!r}: {unit!r} is ambiguous",
            hint=f"do you mean {number:g}{decimal} or {number:g}{binary}? (kB = 1000 B, KiB = 1024 B)",
        )
    if not unit:
        raise UnitError(f"{text!r} has no unit", hint=f"write it like {_EXAMPLES[kind]}; units: {', '.join(units)}")
    raise UnitError(f"{text!r}: unknown unit {unit!r} for a {kind}", hint=f"units: {', '.join(units)}")


def _split(text: str, kind: Kind | None) -> tuple[float, str]:
    example = _EXAMPLES[kind] if kind else "1.0pp"
    if isinstance(text, bool) or not isinstance(text, str):
        raise UnitError(f"{text!r} is a bare number, not a quantity with a unit", hint=f'write it like "{example}"')
    match = _NUMBER.match(text)
    if match is None:
        raise UnitError(f"{text!r} is not a quantity", hint=f"write a number and a unit, like {example}")
    return float(match[1]), match[2]


def _positive(number: float, text: str) -> float:
    if not 0 < number < float("inf"):
        raise UnitError(f"{text!r}: must be greater than zero")
    return number
