"""Accuracy against what the device measured, for every measured trial; the line joins those that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgeprune.records.budget import LimitCheck
from edgeprune.records.figures import format_figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.report.html.axes import Scale, linear
from edgeprune.report.html.chart import legend, percent, plot, unit_of, x_axis, y_axis
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View, label, latency_figure, title, unbroken, value_of

__all__ = ["front", "undominated"]

_HEIGHT, _TOP, _BOTTOM = 360, 22, 310  # pixels
_STAR = "M0,-8 L2.1,-2.6 L7.8,-2.4 L3.3,1.1 L4.8,6.6 L0,3.4 L-4.8,6.6 L-3.3,1.1 L-7.8,-2.4 L-2.1,-2.6 Z"
_LEAST_SPAN = 0.01  # of accuracy that is shown above or below the limit


@dataclass(frozen=True, slots=True)
class _Point:
    trial: Trial
    x: float
    upper: float | None
    accuracy: float


def front(view: View) -> Html | None:
    """A chart for each figure that was measured, the limited latency first; None where no trial was measured."""
    names = dict.fromkeys((latency_figure(view.result), "size", "peak_memory", "energy"))
    shown = {name: points for name in names if len(points := _points(view, name)) > 0}
    if not shown:
        return None
    choices = []
    for index, name in enumerate(shown):
        choices += [
            tag("input", type="radio", name="front", id=f"front-{index}", checked=index == 0, class_="choice"),
            tag("label", label(name), for_=f"front-{index}", class_="choice"),
        ]
    panels = [tag("div", _chart(view, name, points), class_="panel") for name, points in shown.items()]
    stages = {point.trial.stage for points in shown.values() for point in points if point.trial != view.result.dense}
    signs = [
        ("dense", "dense"),
        *([("final", "fine-tuned wholly")] if Stage.FINAL in stages else []),
        *([("short", "recovered quickly, before fine-tuning")] if Stage.MEASURE in stages else []),
        *([("accepted", "accepted" if view.accepted else "closest")] if view.best is not None else []),
        ("bound", "limit of the budget"),
    ]
    return tag("div", choices, panels, legend(*signs), class_="tabs")


def undominated(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, accuracy) those that no other is cheaper and as accurate than, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


def _points(view: View, name: str) -> list[_Point]:
    points = []
    for trial in view.trials:
        x, accuracy = value_of(trial.figures, name), value_of(trial.figures, "accuracy")
        if x is not None and accuracy is not None and trial.stage.is_measured:
            points.append(_Point(trial, x, trial.figures[name].upper, accuracy))
    return points


def _chart(view: View, name: str, points: list[_Point]) -> Html:
    held = {entry.limit.figure: entry for entry in (view.result.check.limits if view.result.check else ())}
    x_limit, y_limit = held.get(name), held.get("accuracy")
    xs = [point.x for point in points] + [b for b in (_bound(x_limit),) if b is not None]
    across = linear(xs, 1.0, 99.0)
    down = _accuracies(view, [point.accuracy for point in points], _bound(y_limit))
    unit, factor = unit_of(name, across.high)
    lines, labels = y_axis(down, 0.01)
    best = undominated([(point.x, point.accuracy) for point in points])
    content: list[Child] = [
        lines,
        _limits(across, down, x_limit, y_limit),
        x_axis(across, _BOTTOM, factor, f"{label(name)}, {unit}"),
        [
            tag(
                "line", x1=percent(across(a[0])), y1=down(a[1]), x2=percent(across(b[0])), y2=down(b[1]), class_="front"
            )
            for a, b in pairwise(best)
        ],
        [_mark(view, name, point, across, down) for point in sorted(points, key=lambda p: _order(view, p))],
    ]
    described = f"accuracy against {label(name)} of {len(points)} measured trials; each point leads to its row"
    return plot(content, height=_HEIGHT, described=described, y_labels=labels, y_title="accuracy, %")


def _bound(entry: LimitCheck | None) -> float | None:
    return None if entry is None else entry.bound


def _accuracies(view: View, values: list[float], bound: float | None) -> Scale:
    """From the best down to well below the limit; what lies lower is drawn on the lower edge."""
    dense = value_of(view.result.dense.figures, "accuracy")
    known = values + [v for v in (bound, dense) if v is not None]
    low, high = min(known), max(known)
    if bound is not None:
        low = max(low, bound - 5 * max(high - bound, _LEAST_SPAN))
    room = max((high - low) * 0.07, 0.002)
    return Scale(low - room, min(high + room, max(1.0, high)), _BOTTOM, _TOP)


def _limits(across: Scale, down: Scale, x_limit: LimitCheck | None, y_limit: LimitCheck | None) -> list[Html]:
    """The limits as lines, and the corner within them shaded."""
    x = None if x_limit is None or x_limit.bound is None else across(x_limit.bound)
    y = None if y_limit is None or y_limit.bound is None else down(y_limit.bound)
    height = (_BOTTOM if y is None else y) - _TOP
    parts = []
    if x is not None or y is not None:
        width = percent(100.0 if x is None else x)
        parts.append(tag("rect", x="0", y=_TOP, width=width, height=height, class_="feasible"))
    if x is not None:
        parts.append(tag("line", x1=percent(x), x2=percent(x), y1=_TOP - 4, y2=_BOTTOM, class_="bound"))
        anchor = "end" if x > 50 else "start"
        text = "" if x_limit is None or x_limit.bound is None else format_figure(x_limit.limit.figure, x_limit.bound)
        parts.append(tag("text", f"limit {text}", x=percent(x), y=_TOP - 9, text_anchor=anchor, class_="note"))
    if y is not None:
        parts.append(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="bound"))
        text = "" if y_limit is None or y_limit.bound is None else format_figure("accuracy", y_limit.bound)
        parts.append(tag("text", f"limit {text}", x="0", dx=6, y=y + 15, class_="note"))
    return parts


def _order(view: View, point: _Point) -> tuple[bool, bool, int]:
    """Drawn last, and so on top: the accepted one, the dense one before it."""
    name = title(view, point.trial)
    return name in ("accepted", "closest"), name == "dense", point.trial.number


def _mark(view: View, name: str, point: _Point, across: Scale, down: Scale) -> Html:
    trial, what = point.trial, title(view, point.trial)
    x, y = across(point.x), down(point.accuracy)
    below = point.accuracy < down.low
    upper = point.upper if point.upper is not None and point.upper > point.x else None
    up_to = "" if upper is None else f" (up to {format_figure(name, upper, point.x)})"
    said = unbroken(
        f"{'' if what.startswith('trial') else what + ', '}trial {trial.number}, {_STAGES[trial.stage]}: "
        f"{label(name)} {format_figure(name, point.x)}{up_to}, accuracy {format_figure('accuracy', point.accuracy)}"
        f"{', below the range of the chart' if below else ''}"
    )
    parts: list[Child] = [tag("title", said)]
    if upper is not None:
        parts.append(tag("line", x1=percent(x), x2=percent(across(upper)), y1=y, y2=y, class_="whisker"))
    parts.append(tag("circle", cx=percent(x), cy=y, r=14, class_="hit"))
    kind = "final" if trial.stage is Stage.FINAL else "short"
    if what == "dense":
        parts.append(tag("svg", tag("path", d=_STAR), x=percent(x), y=y, class_="star", overflow="visible"))
    elif below:
        parts.append(
            tag("svg", tag("path", d="M-5,-9 L5,-9 L0,0 Z"), x=percent(x), y=y, class_="under", overflow="visible")
        )
    else:
        parts.append(tag("circle", cx=percent(x), cy=y, r=5, class_=kind))
    if what in ("accepted", "closest"):
        parts.append(tag("circle", cx=percent(x), cy=y, r=9.5, class_="ring"))
    if not what.startswith("trial"):
        anchor, shift = ("end", -14) if x > 60 else ("start", 14)
        parts.append(
            tag(
                "text",
                what,
                x=percent(x),
                y=y - 11 if y > _TOP + 24 else y + 22,
                dx=shift,
                text_anchor=anchor,
                class_="name",
            )
        )
    return tag(
        "a",
        join(*parts),
        href=f"#trial-{trial.number}",
        class_="point",
        aria_label=said,
        data_trial=trial.number,
        data_x=repr(point.x),
        data_y=repr(point.accuracy),
    )


_STAGES = {
    Stage.SCREEN: "not measured",
    Stage.TUNE: "fine-tuned shortly",
    Stage.MEASURE: "recovered quickly",
    Stage.FINAL: "fine-tuned wholly",
}
