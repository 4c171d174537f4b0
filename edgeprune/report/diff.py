"""Two models side by side, as plain text.

figure       runs/1                    runs/2                    change
latency p50  0.520 ms (up to 0.527 ms) 0.290 ms (up to 0.295 ms) 0.558 x (0.545 to 0.573): faster
accuracy     97.30 %                   96.40 %                   -0.90 pp: lower
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgeprune.records.difference import Difference, FigureChange, Pair
from edgeprune.records.figures import Figure, format_figure
from edgeprune.report.table import table
from edgeprune.report.text import UP_TO
from edgeprune.units import format_points

__all__ = ["render"]

_SHOWN = 16  # characters of a digest


def render(found: Difference) -> str:
    """The text."""
    rows = [["figure", found.a, found.b, "change"], *(_row(entry) for entry in found.figures if _is_known(entry))]
    sections = [[*table(rows), *([UP_TO] if any("(up to " in cell for row in rows for cell in row) else [])]]
    for title, pairs in (
        ("artifact", found.artifact),
        ("candidate", found.candidate),
        (f"width per {found.per}", found.widths),
        ("input", found.inputs),
        ("device", found.device),
    ):
        if pairs:
            sections.append(_pairs(title, pairs))
    if found.notes:
        sections.append([f"note: {note}" for note in found.notes])
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _is_known(entry: FigureChange) -> bool:
    return any(figure is not None and figure.value is not None for figure in (entry.a, entry.b))


def _row(entry: FigureChange) -> list[str]:
    name = entry.name.replace("latency.", "latency ")
    return [name, _cell(entry.name, entry.a), _cell(entry.name, entry.b), _change(entry)]


def _cell(name: str, figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "missing"
    text = format_figure(name, figure.value)
    upper = text if figure.upper is None else format_figure(name, figure.upper, figure.value)
    kind = "" if figure.kind == "measured" else f" {figure.kind}"
    return (text if upper == text else f"{text} (up to {upper})") + kind


def _change(entry: FigureChange) -> str:
    if entry.change is None:
        return "" if entry.reason == "not in both" else entry.reason
    if entry.name == "accuracy":
        amount = format_points(entry.change)
    else:
        amount = f"{entry.change:.3f} x"
        if entry.interval is not None:
            amount += f" ({entry.interval[0]:.3f} to {entry.interval[1]:.3f})"
    return f"{amount}: {entry.verdict or entry.reason}"


def _pairs(title: str, pairs: Sequence[Pair]) -> list[str]:
    return table([[title, "", ""], *([f"  {pair.name}", _shown(pair.a), f"-> {_shown(pair.b)}"] for pair in pairs)])


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        is_digest = len(value) == 64 and set(value) <= set("0123456789abcdef")
        return f"{value[:_SHOWN]}…" if is_digest else value
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)
