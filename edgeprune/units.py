"""Quantities with units: "30ms", "8MiB", "12mJ", "1.5GHz", "1.0pp", "60% of dense"; ambiguous ones are refused.

Sizes: kB, MB, GB are powers of 1000; KiB, MiB, GiB are powers of 1024 (IEC 80000-13); `KB`, `K`, `M` are
refused with a question. A limit may be relative to the dense model: `"60% of dense"`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from edgeprune.errors import UnitError

__all__ = [
    "Drop",
    "Quantity",
    "format_duration",
    "format_energy",
    "format_points",
    "format_size",
    "parse_drop",
    "parse_duration",
    "parse_energy",
    "parse_frequency",
    "parse_quantity",
    "parse_share",
    "parse_size",
    "unit_names",
]

Kind = Literal["duration", "size", "energy", "frequency"]

_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(.*?)\s*")
_OF_DENSE = re.compile(r"%\s+of\s+dense")

# Factors to the unit that records carry: milliseconds, bytes, millijoules, megahertz. The micro sign has two code
# points that look the same: U+00B5 (keyboards) and U+03BC (Greek mu, what Unicode normalisation makes of it).
_UNITS: dict[Kind, dict[str, float]] = {
    "duration": {"ns": 1e-6, "us": 1e-3, "\u00b5s": 1e-3, "\u03bcs": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4},
    "size": {
        "B": 1,
        "kB": 1000,
        "MB": 1000**2,
        "GB": 1000**3,
        "KiB": 1024,
        "MiB": 1024**2,
        "GiB": 1024**3,
    },
    "energy": {"nJ": 1e-6, "uJ": 1e-3, "\u00b5J": 1e-3, "\u03bcJ": 1e-3, "mJ": 1.0, "J": 1e3},
    "frequency": {"Hz": 1e-6, "kHz": 1e-3, "MHz": 1.0, "GHz": 1e3},
}
_EXAMPLES: dict[Kind, str] = {
    "duration": "30ms",
    "size": "4MB or 4MiB",
    "energy": "12mJ",
    "frequency": "1.5GHz",
}
_AMBIGUOUS_SIZE = re.compile(r"([kmg])(i?)b?", re.IGNORECASE)
_MAX_DROP = 100.0


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


def parse_frequency(text: str) -> float:
    """Megahertz of "1.5GHz"; raises UnitError."""
    return _absolute(text, "frequency")


def unit_names(kind: Kind) -> tuple[str, ...]:
    """The units of a kind, as they are written."""
    return tuple(_UNITS[kind])


def parse_quantity(text: str, kind: Kind) -> Quantity:
    """An absolute quantity of the kind, or one relative to the dense model ("60% of dense"); raises UnitError."""
    number, unit = _split(text, kind)
    if _OF_DENSE.fullmatch(unit):
        return Quantity(_positive(number / 100, text), relative=True)
    if unit == "%":
        raise UnitError(f"{text!r}: percent of what?", hint=f'write "{number:g}% of dense", or {_EXAMPLES[kind]}')
    if unit.startswith("%"):
        hint = f'did you mean "{number:g}% of dense"? units: % of dense, {", ".join(_UNITS[kind])}'
        raise UnitError(f"{text!r}: unknown unit {unit!r} for {_article(kind)} {kind}", hint=hint)
    return Quantity(_absolute(text, kind))


def parse_share(text: str) -> float:
    """The fraction that "35%" stands for (0.35); raises UnitError."""
    number, unit = _split(text, None, '"35%"')
    if unit != "%":
        raise UnitError(f"{text!r} is not a percentage", hint='write it like "35%"')
    if not math.isfinite(number):
        raise UnitError(f"{text!r} is out of range")
    return number / 100


def parse_drop(text: str) -> Drop:
    """An allowed loss of accuracy: "1.0pp" (percentage points) or "2%" (of the dense value); raises UnitError."""
    number, unit = _split(text, None, '"1.0pp"')
    if unit not in ("pp", "%"):
        raise UnitError(
            f"{text!r}: a drop of accuracy needs pp or %",
            hint='"1.0pp" is one percentage point, "1.0%" is one percent of the dense value',
        )
    if not 0 <= number <= _MAX_DROP:
        raise UnitError(f"{text!r}: a drop of accuracy lies between 0 and 100")
    return Drop(number, relative=unit == "%")


def format_duration(ms: float, like: float | None = None) -> str:
    """ "412.0 ns", "31.0 us", "0.412 ms", "1.250 s"; beside the value `like` in its unit, where they are near."""
    magnitude = _magnitude(ms, like)
    if magnitude >= 999.9995:  # what three decimals round to 1000 ms is a second
        return f"{ms / 1000:.3f} s"
    if magnitude >= 0.09995 or ms == 0:
        return f"{ms:.3f} ms" if abs(ms) >= 0.09995 or ms == 0 else f"{ms:.4f} ms"
    if magnitude >= 0.99995e-3:
        return f"{ms * 1e3:.1f} us" if abs(ms) >= 0.00995 else f"{ms * 1e3:.2f} us"  # three digits either way
    return f"{ms * 1e6:.1f} ns"


def format_size(size: float, like: float | None = None) -> str:
    """Decimal units: "412 B", "3.21 MB"; beside the value `like` in its unit, where they are near."""
    magnitude = _magnitude(size, like)
    for factor, name in ((1000**3, "GB"), (1000**2, "MB"), (1000, "kB")):
        if magnitude >= factor * (1 - 5e-6):
            return f"{size / factor:.{2 if abs(size) >= factor * (1 - 5e-6) else 3}f} {name}"
    return f"{size:.0f} B"


def format_energy(mj: float, like: float | None = None) -> str:
    """ "45.6 uJ", "12.3 mJ", "1.20 J"; beside the value `like` in its unit, where they are near."""
    magnitude = _magnitude(mj, like)
    if magnitude >= 999.5:
        return f"{mj / 1000:.2f} J"
    return f"{mj:.3g} mJ" if magnitude >= 0.1 or mj == 0 else f"{mj * 1000:.3g} uJ"


def format_points(fraction: float) -> str:
    """A change of an accuracy, "-1.23 pp"; none is "+0.00 pp", of whichever sign its zero is."""
    return f"{round(fraction * 100, 2) + 0.0:+.2f} pp"


def _magnitude(value: float, like: float | None) -> float:
    """What decides on the unit: a tenth of `like` still shows two digits in its unit."""
    return abs(like) if like is not None and 0.1 <= abs(value) / (abs(like) or 1) < 1000 else abs(value)


def _absolute(text: str, kind: Kind) -> float:
    number, unit = _split(text, kind)
    units = _UNITS[kind]
    if unit in units:
        value = _positive(number * units[unit], text)
        if kind != "size":
            return value
        if round(value) < 1:
            raise UnitError(f"{text!r} is less than one byte")
        return round(value)
    if kind == "size" and (match := _AMBIGUOUS_SIZE.fullmatch(unit)):
        raise UnitError(f"{text!r}: {unit!r} is ambiguous", hint=_size_question(number, match[1], bool(match[2])))
    example = _EXAMPLES[kind]
    if not unit:
        raise UnitError(f"{text!r} has no unit", hint=f"write it like {example}; units: {', '.join(units)}")
    if unit.startswith(","):
        raise UnitError(f"{text!r}: a decimal comma", hint=f"write a decimal point, like {text.replace(',', '.', 1)}")
    near = [name for name in units if name.lower() == unit.lower()]
    question = f"did you mean {number:g}{near[0]}? " if near else ""
    raise UnitError(
        f"{text!r}: unknown unit {unit!r} for {_article(kind)} {kind}", hint=f"{question}units: {', '.join(units)}"
    )


def _article(kind: Kind) -> str:
    return "an" if kind == "energy" else "a"


def _size_question(number: float, letter: str, binary: bool) -> str:
    binary_unit = f"{letter.upper()}iB"
    if binary:
        return f"do you mean {number:g}{binary_unit}?"
    decimal_unit = "kB" if letter in "kK" else f"{letter.upper()}B"
    return f"do you mean {number:g}{decimal_unit} or {number:g}{binary_unit}? (kB = 1000 B, KiB = 1024 B)"


def _split(text: str, kind: Kind | None, example: str = "") -> tuple[float, str]:
    example = example or (f'"{_EXAMPLES[kind]}"' if kind else "")
    if text is None:
        raise UnitError("the quantity is missing", hint=f"write it like {example}")
    if not isinstance(text, str):
        what = "a bare number" if isinstance(text, (int, float)) and not isinstance(text, bool) else "no text"
        raise UnitError(f"{text!r} is {what}, not a quantity with a unit", hint=f"write it like {example}")
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UnitError(f"{text!r} is not a quantity", hint=f"write a number and a unit, like {example}")
    return float(match[1]), match[2]


def _positive(number: float, text: str) -> float:
    if number <= 0:
        raise UnitError(f"{text!r}: must be greater than zero")
    if not math.isfinite(number):
        raise UnitError(f"{text!r} is out of range")
    return number
