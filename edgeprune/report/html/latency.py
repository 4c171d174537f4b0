"""How long single inferences took: the raw samples of the dense and of the accepted file, as histograms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.records.figures import format_figure
from edgeprune.records.measurement import Latency
from edgeprune.report.html.axes import Scale, logarithmic
from edgeprune.report.html.chart import percent, plot, unit_of, x_axis
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View, between, in_turn, title

__all__ = ["latency", "shares"]

_BINS = 72
_HEIGHT = 118  # of the bars of one network, in pixels
_SHOWN = 0.995  # of the runs; a few very long ones would press all others together
_STATISTICS = ("p50", "p90", "p95", "p99", "mean")


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
    highest = max(highest, 1e-6)  # a clock may be too coarse to see anything
    scale = logarithmic(max(lowest, highest * 1e-4), highest, 0.0, 100.0)
    unit, factor = unit_of("latency.p50", scale.high)
    charts = [
        _histogram(name, one, scale, axis=(factor, unit, index == len(found) - 1))
        for index, (name, one) in enumerate(found)
    ]
    return join(charts, _in_turn(view), _table(found))


def shares(raw_ms: Sequence[float], scale: Scale, bins: int = _BINS) -> tuple[list[float], int]:
    """The share of the runs in each bin of the scale, and how many runs lie beyond its end."""
    counts, _ = np.histogram(raw_ms, np.asarray(scale.edges(bins)))
    return [float(count) / len(raw_ms) for count in counts], int(np.count_nonzero(np.asarray(raw_ms) > scale.high))


def _histogram(name: str, one: Latency, scale: Scale, axis: tuple[float, str, bool]) -> Html:
    factor, unit, last = axis
    heights, beyond = shares(one.raw_ms, scale)
    highest = max(heights) or 1.0
    edges = scale.edges(_BINS)
    top = 32
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
        tag("g", bars, class_=f"bars {'dense' if name == 'dense' else 'best'}"),
        _marks(one, scale, top, bottom),
        x_axis(scale, bottom, factor, f"latency of one inference, {unit}" if last else ""),
    ]
    heading = tag("p", tag("strong", name), f" {said}", class_="quiet heading")
    chart = plot(content, height=bottom + (44 if last else 26), described=f"histogram of the latency, {name}: {said}")
    return join(heading, chart)


def _marks(one: Latency, scale: Scale, top: float, bottom: float) -> list[Html]:
    """The median with its interval, and p95."""
    parts = []
    low, high = one.lower_ms.get("p50"), one.upper_ms.get("p50")
    if low is not None and high is not None:
        width = max(scale(high) - scale(low), 0.1)
        parts.append(
            tag("rect", x=percent(scale(low)), y=top, width=percent(width), height=bottom - top, class_="band")
        )
    for row, statistic in ((0, "p50"), (1, "p95")):
        value = one.percentile_ms.get(statistic)
        if value is None or value > scale.high:
            continue
        at = scale(value)
        anchor = "end" if at > 75 else "start"
        parts += [
            tag("line", x1=percent(at), x2=percent(at), y1=top - 24 + 14 * row, y2=bottom, class_=f"mark {statistic}"),
            tag(
                "text",
                f"{statistic} {format_figure('latency.p50', value)}",
                x=percent(at),
                y=top - 18 + 14 * row,
                dx=-5 if anchor == "end" else 5,
                text_anchor=anchor,
                class_="note",
            ),
        ]
    return parts


def _table(found: Sequence[tuple[str, Latency]]) -> Html:
    """What the percentiles are, with their 95 % intervals; one that the number of runs does not support says so."""
    rows = [
        tag("tr", tag("th", statistic, scope="row"), [tag("td", _told(one, statistic)) for _, one in found])
        for statistic in _STATISTICS
    ]
    head = tag("tr", tag("td"), [tag("th", name, scope="col") for name, _ in found])
    return tag("table", tag("thead", head), tag("tbody", rows), class_="small")


def _told(one: Latency, statistic: str) -> Html:
    value = one.mean_ms if statistic == "mean" else one.percentile_ms.get(statistic)
    if value is None:
        return tag("span", one.refused.get(statistic, "not measured"), class_="why")
    low, high = one.lower_ms.get(statistic), one.upper_ms.get(statistic)
    known = low is not None and high is not None
    told = [format_figure("latency.p50", edge, value) for edge in (low, high) if edge is not None]
    shown = tag("span", format_figure("latency.p50", value), class_="number")
    return join(shown, tag("span", between(*told), class_="interval") if known else None)


def _in_turn(view: View) -> Html | None:
    """Where candidates ran in turn with the dense network, the figures above are of those runs, not of these."""
    lines = []
    for run in in_turn(view.best) if view.best is not None else ():
        where = f" on {run.target}" if run.target else ""
        alone = "" if run.alone_ms is None else f" By itself it took {format_figure('latency.p50', run.alone_ms)}."
        lines.append(
            f"The pruned one ran in turn with the dense network too{where}, so that the speed at "
            f"which the device happens to run cancels: it takes {run.ratio:.3f} ({run.lower:.3f} to {run.upper:.3f}) "
            f"of the dense median. That share is what the limit was held against.{alone}"
        )
    return join([tag("p", line) for line in lines]) if lines else None
