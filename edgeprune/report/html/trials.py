"""All trials in a table; each row opens to what else is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.records.figures import format_figure
from edgeprune.records.trial import MEASURED_AGAIN, Stage, Trial
from edgeprune.report.html.markup import Child, Html, tag
from edgeprune.report.html.view import View, label, latency_figure, title, value_of

__all__ = ["trials"]

_STAGES = {Stage.SCREEN: "screened", Stage.TUNE: "tuned shortly", Stage.MEASURE: "measured", Stage.FINAL: "final"}
_TEXTS = {
    "accuracy_before_fine_tuning": "accuracy before fine-tuning",
    "fine_tuning_steps": "steps of fine-tuning",
    "macs": "multiply-accumulates",
    "params": "parameters",
    "peak_activation_bytes": "peak of the activations (estimated)",
    MEASURED_AGAIN: "measured again, because",
    "parity_error": "error of the file against the network",
    "verification_error": "error of the surgery",
    "sqnr_db": "SQNR, dB",
}
_ELSEWHERE = ("device", "sources", "dense_again", "pool")  # shown with what was measured on, not here
_SHARES = ("accuracy_before_fine_tuning",)


def trials(view: View) -> Html:
    """Sortable where scripts run; the table scrolls in itself where it is wider than the page."""
    names = _columns(view)
    heads = ["trial", "stage", *[label(name) for name in names], "parameters", "work, s"]
    cells = [tag("th", text, scope="col", data_sort=text) for text in heads]
    rows = [
        tag("tbody", _row(view, trial, names), tag("tr", tag("td", _details(trial), colspan=len(heads)), class_="more"))
        for trial in view.trials
    ]
    table = tag("table", tag("thead", tag("tr", cells)), rows, class_="trials")
    return tag("div", table, class_="scroll", role="region", aria_label="table of the trials", tabindex=0)


def _columns(view: View) -> list[str]:
    limited = [limit.figure for limit in view.result.budget.limits]
    wanted = dict.fromkeys(
        ("accuracy", latency_figure(view.result), "latency.p95", "peak_memory", "size", "energy", *limited)
    )
    return [name for name in wanted if any(value_of(trial.figures, name) is not None for trial in view.trials)]


def _row(view: View, trial: Trial, names: list[str]) -> Html:
    what = title(view, trial)
    mark = None if what.startswith("trial") else tag("span", what, class_=f"mark {what}")
    params = trial.details.get("params")
    cells: list[Child] = [_figure(view, trial, name) for name in names]
    failed = "" if trial.outcome == "OK" else f" {trial.outcome}"
    return tag(
        "tr",
        tag("th", tag("label", _opener(trial), " ", trial.number), " ", mark, scope="row", data_value=trial.number),
        tag("td", _STAGES[trial.stage], tag("strong", failed) if failed else None, data_value=trial.stage.value),
        cells,
        tag(
            "td",
            f"{params:,}" if isinstance(params, int) else "–",
            class_="number",
            data_value=params if isinstance(params, int) else None,
        ),
        tag("td", f"{trial.seconds:.1f}", class_="number", data_value=repr(trial.seconds)),
        id=f"trial-{trial.number}",
        class_=what if what in ("accepted", "closest", "dense") else None,
        tabindex=-1,
    )


def _figure(view: View, trial: Trial, name: str) -> Html:
    figure = trial.figures.get(name)
    if figure is None or figure.value is None:
        return tag("td", tag("span", "–", class_="quiet", title=figure.missing if figure else None), class_="number")
    dense = view.result.dense.figures.get(name)
    text = format_figure(name, figure.value, None if dense is None else dense.value)
    note = None if figure.kind == "measured" else tag("span", figure.kind, class_="kind estimated")
    return tag("td", text, note, class_="number", data_value=repr(figure.value), data_figure=name)


def _details(trial: Trial) -> Html:
    entries = _entries(trial.details)
    if trial.message:
        entries.insert(0, ("message", trial.message))
    kept = len(trial.candidate.kept)
    blocks = ", ".join(trial.candidate.dropped_blocks)
    entries.append(
        ("candidate", f"{trial.candidate.id}: {kept} groups narrowed" + (f", dropped: {blocks}" if blocks else ""))
    )
    if trial.artifact:
        entries.append(("file", trial.artifact))
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in entries])


def _opener(trial: Trial) -> Html:
    """A box that shows the row below it, by the style sheet alone."""
    return tag("input", type="checkbox", class_="opener", aria_label=f"details of trial {trial.number}")


def _entries(details: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Whatever a trial's details hold, in words where they are known."""
    found: list[tuple[str, str]] = []
    for name, value in details.items():
        if name in _ELSEWHERE and not before:
            continue
        text = before + _TEXTS.get(name, name.replace("_", " "))
        if isinstance(value, Mapping):
            found += _entries(value, f"{text}: ")
        else:
            found.append((text, _told(name, value)))
    return found


def _told(name: str, value: Any) -> str:
    if name in _SHARES and isinstance(value, float):
        return format_figure("accuracy", value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    between = "; " if name == MEASURED_AGAIN else ", "
    return between.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
