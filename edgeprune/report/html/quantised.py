"""What int8 did: the schemes that were tried on the dense network, and the float and the int8 file of the best one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.records.figures import format_figure
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View, title, value_of

__all__ = ["quantised"]


def quantised(view: View) -> Html | None:
    """Tables of schemes, and of the compared files; None where nothing was quantised."""
    int8 = view.result.provenance.get("int8")
    tried = int8.get("tried") if isinstance(int8, Mapping) else None
    chosen = int8.get("scheme") if isinstance(int8, Mapping) else None
    files = [row for trial in view.compared if (row := _file(view, trial.number)) is not None]
    parts: list[Child] = []
    if files:
        parts.append(_table(["file", "accuracy, float", "accuracy, int8", "SQNR", "size, float", "size, int8"], files))
    if isinstance(tried, list) and tried:
        rows = [_scheme(entry, entry.get("scheme") == chosen) for entry in tried if isinstance(entry, Mapping)]
        heads = ["scheme", "accuracy, float", "accuracy, int8", "SQNR", "size", "latency / float", ""]
        parts += [tag("h3", "Schemes, tried on the dense network"), _table(heads, rows)]
    said = _said(int8 if isinstance(int8, Mapping) else {})
    return join(tag("p", said) if said else None, parts) if parts else None


def _said(int8: Mapping[str, Any]) -> str:
    parts = [f"Calibrated on {int8['calibrated_on']}."] if int8.get("calibrated_on") else []
    difference = int8.get("device_difference")
    if isinstance(difference, (int, float)):
        apart = (
            f"differ from this machine's by {difference:.3g} of the largest"
            if difference
            else "are this machine's, too"
        )
        parts.append(f"The device's outputs {apart}.")
    return " ".join(parts)


def _table(heads: list[str], rows: list[tuple[str, list[Child]]]) -> Html:
    head = tag("tr", [tag("th", text, scope="col", role="columnheader") for text in heads], role="row")
    body = [
        tag(
            "tr",
            tag("th", name, scope="row", role="rowheader"),
            [
                tag("td", tag("div", cell or "–"), data_label=text, role="cell", class_=None if cell else "empty")
                for text, cell in zip(heads[1:], cells, strict=True)
            ],
            role="row",
        )
        for name, cells in rows
    ]
    return tag(
        "table", tag("thead", head, role="rowgroup"), tag("tbody", body, role="rowgroup"), class_="cards", role="table"
    )


def _file(view: View, number: int) -> tuple[str, list[Child]] | None:
    """A trial's int8 file beside the float one that it was made of."""
    trial = next((trial for trial in view.compared if trial.number == number), None)
    details = None if trial is None else trial.details.get("quantised")
    if trial is None or not isinstance(details, Mapping):
        return None
    accuracy, size = (value_of(trial.figures, name) for name in ("accuracy", "size"))
    cells: list[Child] = [
        _figure("accuracy", details.get("float_accuracy")),
        _figure("accuracy", accuracy),
        _decibels(details.get("sqnr_db")),
        _figure("size", details.get("float_size_bytes")),
        _figure("size", size),
    ]
    return f"{title(view, trial)}, {details.get('scheme', 'int8')}", cells


def _scheme(entry: Mapping[str, Any], chosen: bool) -> tuple[str, list[Child]]:
    ratio, lower, upper = (entry.get(name) for name in ("ratio", "lower", "upper"))
    interval = f"{lower:.3f} to {upper:.3f}" if lower is not None and upper is not None else ""
    time = None if ratio is None else join(f"{ratio:.3f} ×", tag("span", interval, class_="interval"))
    cells: list[Child] = [
        _figure("accuracy", entry.get("float_accuracy")),
        _figure("accuracy", entry.get("accuracy")),
        _decibels(entry.get("sqnr_db")),
        _figure("size", entry.get("size_bytes")),
        time,
        str(entry.get("refused") or ("chosen" if chosen else "")),
    ]
    return str(entry.get("scheme", "")), cells


def _figure(name: str, value: Any) -> str:
    return format_figure(name, float(value)) if isinstance(value, (int, float)) else ""


def _decibels(value: Any) -> str:
    return f"{value:.1f} dB" if isinstance(value, (int, float)) else ""
