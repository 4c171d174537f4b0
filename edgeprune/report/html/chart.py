"""What the charts have in common: a plot between its axes, ticks in the unit of the figure, legends."""

from __future__ import annotations

from edgeprune.records.figures import format_figure
from edgeprune.report.html.axes import Scale
from edgeprune.report.html.markup import Child, Html, tag

__all__ = ["legend", "percent", "plot", "unit_of", "x_axis", "y_axis"]

_FACTORS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_ENERGY = {"uJ": 1e-3, "mJ": 1.0, "J": 1e3}
_LEFT, _RIGHT = 8, 92  # per cent of the width: a label further out would leave the plot


def percent(value: float) -> str:
    """A position across, in per cent of the width."""
    return f"{value:.2f}%"


def unit_of(name: str, magnitude: float) -> tuple[str, float]:
    """The unit that a figure of that magnitude is told in, and its factor: ("ms", 1.0)."""
    if name == "accuracy":
        return "%", 0.01
    unit = format_figure(name, magnitude).split()[-1]
    return unit, (_ENERGY if name == "energy" else _FACTORS)[unit]


def plot(content: Child, *, height: int, described: str, y_labels: Child = None, y_title: str = "") -> Html:
    """A chart of that height in pixels; `y_labels` stand left of it, in a column of their own."""
    area = tag("svg", content, class_="area", height=height, role="group", aria_label=described)
    side = None if y_labels is None else tag("svg", y_labels, class_="side", height=height, aria_hidden="true")
    above = tag("div", y_title, class_="y-title", aria_hidden="true") if y_title else None
    return tag("div", above, tag("div", side, area, class_="plot" if side is not None else "plot bare"), class_="chart")


def x_axis(scale: Scale, y: float, factor: float, title: str, *, top: float | None = None) -> list[Html]:
    """Ticks and their labels below `y`; with `top` lines across the plot."""
    parts = []
    for tick in scale.ticks():
        at = scale(tick)
        anchor = "start" if at < _LEFT else "end" if at > _RIGHT else "middle"
        if top is not None:
            parts.append(tag("line", x1=percent(at), x2=percent(at), y1=top, y2=y, class_="grid"))
        parts.append(tag("text", f"{tick / factor:g}", x=percent(at), y=y + 18, text_anchor=anchor, class_="tick"))
    parts.append(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="axis"))
    parts.append(tag("text", title, x="100%", y=y + 36, text_anchor="end", class_="axis-title"))
    return parts


def y_axis(scale: Scale, factor: float) -> tuple[list[Html], list[Html]]:
    """Lines across the plot, and the labels that stand beside it."""
    lines, labels = [], []
    for tick in scale.ticks(6):
        y = scale(tick)
        lines.append(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="grid"))
        labels.append(tag("text", f"{tick / factor:g}", x="100%", y=y + 4, text_anchor="end", class_="tick"))
    return lines, labels


def legend(*entries: tuple[str, str]) -> Html:
    """Signs (classes of the style sheet) and what they stand for."""
    return tag(
        "ul",
        [tag("li", tag("span", class_=f"sign {sign}", aria_hidden="true"), text) for sign, text in entries],
        class_="legend",
    )
