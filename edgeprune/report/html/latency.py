"""How long single inferences took: the raw samples of the dense and of the accepted file, as histograms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.records.figures import format_figure
from edgeprune.records.measurement import Latency
from edgeprune.report.html.axes import Scale, logarithmic
from edgeprune.report.html.chart import percent, plot, unit_of, x_axis
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View, title

__all__ = ["latency", "shares"]

_BINS = 72
_HEIGHT = 118  # of the bars of one network, in pixels
_SHOWN = 0.995  # of the runs; a few very long ones would press all others together
_FIGURES = ("latency.p50", "latency.p90", "latency.p95", "latency.p99", "latency.mean")


def latency(view: View) -> Html | None:
    """One histogram above the other, on the same axis; None where no raw samples are there."""
    found = [
        (title(view, trial), measured.latency)
        for trial in view.compared
        if (measured := view.measurements.get(trial.number)) is not None
        and measured.latency is not None
        and len(measured.latency.raw_ms) > 1
    ]
    if not found:
        return None
    highest = max(float(np.quantile(one.raw_ms, _SHOWN)) for _, one in found)
    lowest = min(one.min_ms for _, one in found)
    scale = logarithmic(max(lowest, highest * 1e-4), highest, 0.0, 100.0)
    unit, factor = unit_of("latency.p50", scale.high)
    charts = [
        _histogram(name, one, scale, axis=(factor, unit, index == len(found) - 1))
        for index, (name, one) in enumerate(found)
    ]
    return join(charts, _table(view, [name for name, _ in found]))


def shares(raw_ms: Sequence[float], scale: Scale, bins: int = _BINS) -> tuple[list[float], int]:
    """The share of the runs in each bin of the scale, and how many runs lie beyond its end."""
    counts, _ = np.histogram(raw_ms, np.asarray(scale.edges(bins)))
    return [float(count) / len(raw_ms) for count in counts], int(np.count_nonzero(np.asarray(raw_ms) > scale.high))


def _histogram(name: str, one: Latency, scale: Scale, axis: tuple[float, str, bool]) -> Html:
    factor, unit, last = axis
    heights, beyond = shares(one.raw_ms, scale)
    highest = max(heights) or 1.0
    edges = scale.edges(_BINS)
    top = 34
    bottom = top + _HEIGHT
    bars = []
    for share, low, high in zip(heights, edges, edges[1:], strict=False):
        if share:
            tall = max(share / highest * _HEIGHT, 1.0)
            start, end = (format_figure("latency.p50", edge) for edge in (low, high))
            told = f"{start} to {end}: {share * 100:.1f} % of the runs"
            width = max(scale(high) - scale(low) - 0.12, 0.2)
            bar = tag(
                "rect", tag("title", told), x=percent(scale(low)), y=bottom - tall, width=percent(width), height=tall
            )
            bars.append(bar)
    said = f"{one.samples:,} runs" + (
        f", {beyond} longer than shown (up to {format_figure('latency.p50', one.max_ms)})" if beyond else ""
    )
    content: list[Child] = [
        tag("text", tag("tspan", name, class_="strong"), f"  {said}", x="0", y=12, class_="note"),
        tag("g", bars, class_=f"bars {'dense' if name == 'dense' else 'best'}"),
        _marks(one, scale, top, bottom),
        x_axis(scale, bottom, factor, f"latency of one inference, {unit}" if last else ""),
    ]
    return plot(content, height=bottom + (44 if last else 26), described=f"histogram of the latency, {name}: {said}")


def _marks(one: Latency, scale: Scale, top: float, bottom: float) -> list[Html]:
    """The median with its interval, and p95."""
    parts = []
    low, high = one.lower_ms.get("p50"), one.upper_ms.get("p50")
    if low is not None and high is not None:
        width = max(scale(high) - scale(low), 0.1)
        parts.append(
            tag("rect", x=percent(scale(low)), y=top, width=percent(width), height=bottom - top, class_="band")
        )
    for statistic, row in (("p50", 0), ("p95", 0)):
        value = one.percentile_ms.get(statistic)
        if value is None or value > scale.high:
            continue
        at = scale(value)
        anchor = "end" if at > 75 else "start"
        parts += [
            tag("line", x1=percent(at), x2=percent(at), y1=top - 6, y2=bottom, class_=f"mark {statistic}"),
            tag(
                "text",
                f"{statistic} {format_figure('latency.p50', value)}",
                x=percent(at),
                y=top - 4 + row,
                dx=-5 if anchor == "end" else 5,
                text_anchor=anchor,
                class_="note",
            ),
        ]
    return parts


def _table(view: View, shown: list[str]) -> Html:
    """What the percentiles are; one that the number of runs does not support says so."""
    trials = [trial for trial in view.compared if title(view, trial) in shown]
    heads = ["", *shown]
    rows = []
    for name in _FIGURES:
        cells = []
        for trial in trials:
            figure = trial.figures.get(name)
            missing = figure is None or figure.value is None
            cells.append(
                tag("td", tag("span", "not supported", title=figure.missing if figure else None, class_="quiet"))
                if missing
                else tag("td", format_figure(name, figure.value), class_="number")  # type: ignore[union-attr, arg-type]
            )
        rows.append(tag("tr", tag("th", name.removeprefix("latency."), scope="row"), cells))
    head = tag("tr", [tag("th", text, scope="col") if text else tag("td") for text in heads])
    return tag("table", tag("thead", head), tag("tbody", rows), class_="small")
