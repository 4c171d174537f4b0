"""What was asked and what was reached: a bar for each limit, and the table of all figures, dense and pruned."""

from __future__ import annotations

from edgeprune.records.budget import LimitCheck, State
from edgeprune.records.figures import Figure, format_figure
from edgeprune.records.trial import Trial
from edgeprune.report.html import wording
from edgeprune.report.html.axes import linear
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View, in_turn, interval, label, title

__all__ = ["figures", "limits", "state_chip"]

_ALWAYS = ("accuracy", "latency.p50", "latency.p95", "peak_memory", "size", "energy")
_COUNTED = ("params", "macs")
_SIGNS = {State.MET: "✓", State.VIOLATED: "✕", State.UNKNOWN: "?"}


def state_chip(state: State) -> Html:
    """Whether a limit is met, in a sign and a word."""
    return tag("span", tag("span", _SIGNS[state], aria_hidden="true"), " ", state.value, class_=f"chip {state.value}")


def limits(view: View) -> Html | None:
    """Each limit of the budget with what was reached; None where nothing was measured to hold against it."""
    check = view.result.check
    if check is None:
        return None
    least = check.binding
    return tag("ul", [_limit(view, entry, entry is least) for entry in check.limits], class_="limits")


def _limit(view: View, entry: LimitCheck, least: bool) -> Html:
    name = entry.limit.figure
    value = "missing" if entry.value is None else format_figure(name, entry.value, entry.bound)
    kept = wording.headroom(entry)
    notes = [
        f"headroom {kept}" if kept else "",
        "least headroom" if least and len(view.result.budget.limits) > 1 else "",
    ]
    return tag(
        "li",
        tag("div", tag("strong", label(name)), state_chip(entry.state), class_="what"),
        tag("div", value, class_="big"),
        tag("div", "asked: ", ", ".join(text for text in wording.asked(entry) if text), class_="quiet"),
        _bullet(view, entry),
        tag("div", ", ".join(note for note in notes if note) or None, class_="quiet"),
        tag("p", entry.reason, class_="reason") if entry.reason else None,
        class_="limit",
        data_metric=entry.limit.metric,
        data_state=entry.state.value,
    )


def _bullet(view: View, entry: LimitCheck) -> Html | None:
    """The value with its upper bound on a line, the limit, and where the dense network is."""
    figure = view.result.dense.figures.get(entry.limit.figure)
    dense = None if figure is None else figure.value
    known = [v for v in (entry.value, entry.upper, entry.bound, dense) if v is not None]
    if entry.value is None or entry.bound is None:
        return None
    scale = linear(known, 0.5, 99.5, zero=not entry.limit.is_accuracy)
    at, bound = scale(entry.value), scale(entry.bound)
    start = bound if entry.limit.is_accuracy else scale(scale.low)
    parts: list[Child] = [
        tag("rect", x="0", y=9, width="100%", height=6, rx=3, class_="track"),
        _allowed(bound, accuracy=entry.limit.is_accuracy),
        tag("rect", x=f"{min(start, at):.2f}%", y=9, width=f"{abs(at - start):.2f}%", height=6, rx=3, class_="reached"),
    ]
    if entry.upper is not None and entry.upper > entry.value:
        parts.append(tag("line", x1=f"{at:.2f}%", x2=f"{scale(entry.upper):.2f}%", y1=12, y2=12, class_="whisker"))
    if dense is not None:
        parts.append(tag("circle", cx=f"{scale(dense):.2f}%", cy=12, r=4.5, class_="dense-dot"))
    parts += [
        tag("circle", cx=f"{at:.2f}%", cy=12, r=5.5, class_=f"value-dot {entry.state.value}"),
        tag("line", x1=f"{bound:.2f}%", x2=f"{bound:.2f}%", y1=2, y2=22, class_="bound"),
    ]
    name = entry.limit.figure
    described = f"{label(name)}: {format_figure(name, entry.value)}, limit {wording.asked(entry)[0]}"
    return tag("svg", parts, class_="bullet", role="img", aria_label=described, height=24)


def _allowed(bound: float, *, accuracy: bool) -> Html:
    start, end = (bound, 100.0) if accuracy else (0.0, bound)
    return tag("rect", x=f"{start:.2f}%", y=9, width=f"{end - start:.2f}%", height=6, class_="allowed")


def figures(view: View) -> Html:
    """The table. Below a value stands its 95 % interval; each says whether it was measured."""
    heads = ["figure", "dense"]
    if view.best is not None:
        heads += [f"{'pruned' if view.accepted else 'closest'} (trial {view.best.number})", "pruned / dense"]
    heads += ["limit", "headroom"]
    limited = [limit.figure for limit in view.result.budget.limits]
    rows = [_row(view, heads, name) for name in dict.fromkeys((*_ALWAYS, *limited))]
    rows += [row for name in _COUNTED if (row := _counted(view, heads, name)) is not None]
    head = tag("tr", [tag("th", text, scope="col", role="columnheader") for text in heads], role="row")
    return tag(
        "table",
        tag("caption", "Below each value its 95 % interval; of memory with the spread between workers."),
        tag("thead", head, role="rowgroup"),
        tag("tbody", rows, role="rowgroup"),
        class_="figures cards",
        role="table",
    )


def _row(view: View, heads: list[str], name: str) -> Html:
    dense = view.result.dense.figures.get(name)
    cells: list[Child] = [_value(view, view.result.dense, name)]
    if view.best is not None:
        best = view.best.figures.get(name)
        values = [None if figure is None else figure.value for figure in (dense, best)]
        cells += [_value(view, view.best, name), _change(view.best, name, *values)]
    held = [e for e in (view.result.check.limits if view.result.check else ()) if e.limit.figure == name]
    cells += [
        [tag("span", _asked(entry), class_="line") for entry in held],
        [tag("span", wording.headroom(entry), " ", state_chip(entry.state), class_="line number") for entry in held],
    ]
    return _cells(label(name), heads, cells)


def _change(best: Trial, name: str, before: float | None, after: float | None) -> Html | None:
    """Pruned over dense; with the interval of the ratio where both ran in turn."""
    text = wording.change(name, before, after)
    runs = in_turn(best) if name == "latency.p50" else ()
    told = [f"{run.lower:.3f} to {run.upper:.3f}, in turn" for run in runs if len(runs) == 1]
    return (
        join(tag("span", text, class_="number"), [tag("span", line, class_="interval") for line in told])
        if text
        else None
    )


def _asked(entry: LimitCheck) -> Html:
    bound, text = wording.asked(entry)
    return join(tag("span", bound, class_="number"), tag("span", text, class_="interval") if text else None)


def _cells(name: str, heads: list[str], cells: list[Child]) -> Html:
    shown = [
        tag(
            "td",
            tag("div", cell or tag("span", "–", class_="quiet")),
            data_label=head,
            role="cell",
            class_=None if cell else "empty",
        )
        for head, cell in zip(heads[1:], cells, strict=True)
    ]
    return tag("tr", tag("th", name, scope="row", role="rowheader"), shown, role="row")


def _value(view: View, trial: Trial, name: str) -> Html:
    figure = trial.figures.get(name, Figure(None, missing="not measured"))
    other = view.result.dense.figures.get(name)
    if figure.value is None:
        said = trial is view.best and other is not None and figure.missing.endswith(other.missing or "?")
        return tag("span", "missing", None if said else tag("span", figure.missing, class_="why"), class_="missing")
    like = None if other is None else other.value
    text = interval(name, figure, view.measurements.get(trial.number), like)
    value = tag(
        "span",
        format_figure(name, figure.value, like),
        class_="number",
        data_figure=name,
        data_trial=title(view, trial),
        data_value=repr(figure.value),
    )
    return join(value, " ", _kind(figure.kind), tag("span", text, class_="interval") if text else None)


def _kind(kind: str) -> Html:
    return tag("span", kind, class_=f"kind {kind}")


def _counted(view: View, heads: list[str], name: str) -> Html | None:
    """Parameters and multiply-accumulates: counted in the network, neither measured nor estimated."""
    counts = [trial.details.get(name) for trial in view.compared]
    if not isinstance(counts[0], int):
        return None
    cells: list[Child] = []
    for trial, count in zip(view.compared, counts, strict=True):
        told = {"data_figure": name, "data_trial": title(view, trial), "data_value": str(count)}
        known = isinstance(count, int)
        cells.append(join(tag("span", f"{count:,}", class_="number", **told), " ", _kind("counted")) if known else None)
    if view.best is not None:
        last = counts[-1]
        cells.append(wording.change(name, counts[0], last) if isinstance(last, int) else None)
    return _cells(label(name), heads, [*cells, None, None])
