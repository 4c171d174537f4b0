"""Memory and power: what the peak is made of, how a process grows to it, and the power that was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from edgeprune.records.figures import format_figure
from edgeprune.records.measurement import Energy, Measurement, Memory
from edgeprune.report import measured_on
from edgeprune.report.html.axes import Scale, linear
from edgeprune.report.html.chart import legend, percent, plot, x_axis, y_axis
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View, title

__all__ = ["memory", "power", "thinned"]

_LONG = 12  # characters: what stands behind a bar; longer text stands below it
_STAGES = (("base", "runtime alone"), ("loaded", "model loaded"), ("sampled", "highest sample"))
_MOST_POINTS = 500
_KINDS = {
    "anonymous": "anonymous: given back only by swapping",
    "file": "file-backed: the kernel can drop it",
    "nvmap": "mapped by the graphics processor",
    "other": "of either kind",
}


def memory(view: View) -> Html | None:
    """Stacked bars of the model's peak and of the whole process; None where memory was not measured."""
    found = [
        (title(view, trial), measured, memory)
        for trial in view.compared
        if (measured := view.measurements.get(trial.number)) is not None and (memory := measured.memory) is not None
    ]
    if not found:
        return None
    peaks = [(name, _parts(memory), _of_peak(memory)) for name, _, memory in found]
    growth = [
        (f"{name}: {told}", parts, format_figure("peak_memory", float(sum(size for _, size in parts))))
        for name, measured, _ in found
        for told, parts in _stages(measured)
    ]
    limits = view.result.check.limits if view.result.check else ()
    limit = next((entry.bound for entry in limits if entry.limit.metric == "peak_memory"), None)
    kinds = {kind for _, parts, _ in (*peaks, *growth) for kind, _ in parts}
    signs = [(kind, text) for kind, text in _KINDS.items() if kind in kinds]
    return join(
        tag("h3", "Peak that the model adds to the runtime"),
        _bars(peaks, limit),
        _swapped([(name, memory) for name, _, memory in found]),
        [tag("h3", "The whole process"), _bars(growth, None)] if growth else None,
        legend(*signs, *([("bound", "limit of the budget")] if limit is not None else [])),
    )


def _parts(memory: Memory) -> list[tuple[str, int]]:
    parts = [("other", memory.model_peak_bytes)]
    if memory.anonymous_peak_bytes is not None and memory.file_peak_bytes is not None:
        parts = [("anonymous", memory.anonymous_peak_bytes), ("file", memory.file_peak_bytes)]
        rest = memory.model_peak_bytes - memory.anonymous_peak_bytes - memory.file_peak_bytes
        parts += [("other", rest)] if rest > 0 else []
    return parts + ([("nvmap", memory.nvmap_peak_bytes)] if memory.nvmap_peak_bytes else [])


def _of_peak(memory: Memory) -> str:
    peak = memory.model_peak_bytes + (memory.nvmap_peak_bytes or 0)
    split = [
        f"{text} {format_figure('peak_memory', size, peak)}"
        for text, size in (
            ("anonymous", memory.anonymous_peak_bytes),
            ("file-backed", memory.file_peak_bytes),
            ("graphics", memory.nvmap_peak_bytes),
            ("while running", memory.inference_peak_bytes),
        )
        if size is not None
    ]
    noise = f"noise {format_figure('peak_memory', memory.noise_bytes, peak)}"
    workers = f"{memory.workers} process{'' if memory.workers == 1 else 'es'}"
    return f"{format_figure('peak_memory', float(peak))} ({', '.join([*split, noise, workers])})"


def _stages(measured: Measurement) -> list[tuple[str, list[tuple[str, int]]]]:
    """Of the process with the middle peak, where the record has them: sizes at each stage, in both kinds."""
    workers = measured.conditions.get("memory_workers")
    workers = [w for w in workers if isinstance(w, Mapping)] if isinstance(workers, Sequence) else []
    if not workers:
        return []
    middle = sorted(workers, key=lambda worker: worker.get("peak") or 0)[len(workers) // 2]
    return [(told, sizes) for name, told in _STAGES if (sizes := _sizes(middle.get(name)))]


def _sizes(entry: Any) -> list[tuple[str, int]]:
    if not isinstance(entry, Mapping):
        return []
    sizes = [(name, entry.get(name)) for name in ("anonymous", "file")]
    return [(name, size) for name, size in sizes if isinstance(size, int)]


def _bars(rows: Sequence[tuple[str, list[tuple[str, int]], str]], limit: float | None) -> Html:
    totals = [float(sum(size for _, size in parts)) for _, parts, _ in rows]
    scale = Scale(0.0, max([*totals, limit or 0.0]) * 1.02 or 1.0, 0.0, 100.0)
    lines = []
    for name, parts, told in rows:
        bars: list[Html] = []
        before = 0.0
        for kind, size in parts:
            start, end = scale(before), scale(before + size)
            bars.append(tag("rect", x=percent(start), y=3, width=percent(end - start), height=14, class_=kind))
            before += size
        if limit is not None:
            at = percent(scale(limit))
            bars.append(tag("line", x1=at, x2=at, y1=0, y2=20, class_="bound"))
        picture = tag("svg", bars, height=20, role="img", aria_label=f"{name}: {told}")
        lines.append(tag("li", tag("span", name, class_="layer"), picture, tag("span", told, class_="quiet number")))
    return tag("ul", lines, class_="stacks long" if any(len(told) > _LONG for _, _, told in rows) else "stacks")


def _swapped(found: Sequence[tuple[str, Memory]]) -> Html | None:
    swapped = [f"{name}: {format_figure('peak_memory', m.swapped_bytes)}" for name, m in found if m.swapped_bytes]
    return (
        tag("p", f"Swapped out meanwhile, and added to the bound: {', '.join(swapped)}.", class_="reason")
        if swapped
        else None
    )


def power(view: View) -> Html | None:
    """The traces of the sensor with the rests before and after; None where no energy was measured."""
    found = [
        (title(view, trial), measured.energy)
        for trial in view.compared
        if (measured := view.measurements.get(trial.number)) is not None and measured.energy is not None
    ]
    if not found:
        return None
    parts: list[Child] = [
        [
            _trace(name, energy) if len(energy.raw) > 1 else None,
            tag("p", f"{name}: {measured_on.of_energy(energy).removeprefix('energy: ')}"),
        ]
        for name, energy in found
    ]
    return join(parts, legend(("load", "inferences ran"), ("rest", "rest, with the model loaded")))


def _trace(name: str, energy: Energy) -> Html:
    """Power over time; of a sensor that counts energy, the mean between two readings."""
    points = thinned(energy.raw if energy.quantity == "power" else _differences(energy.raw))
    began, ended = energy.raw[0][0], energy.raw[-1][0]
    across = Scale(began, max(ended, began + 1e-9), 0.0, 100.0)
    down = linear([value for _, value in points], 150, 26, zero=True)
    lines, labels = y_axis(down, 1.0)
    shaded = []
    for window, (begin, end) in energy.windows.items():
        start, stop = across(begin), across(end)
        kind = "load" if window == "load" else "rest"
        box = tag("rect", x=percent(start), y=26, width=percent(stop - start), height=124, class_=f"window {kind}")
        shaded.append(box)
    path = " ".join(f"{across(when) * 10:.1f},{down(value):.1f}" for when, value in points)
    line = tag("polyline", points=path, class_=f"trace {'dense' if name == 'dense' else 'best'}")
    # The box of the line is stretched to the width; its stroke is not.
    stretched = tag(
        "svg", line, x="0", y="0", width="100%", height=150, viewBox="0 0 1000 150", preserveAspectRatio="none"
    )
    content = [
        tag("text", name, x="0", y=12, class_="note strong"),
        shaded,
        lines,
        stretched,
        x_axis(across, 150, 1.0, "time, s"),
    ]
    return plot(content, height=194, described=f"power over time, {name}", y_labels=labels, y_title="power, W")


def _differences(raw: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    pairs = pairwise(raw)
    return [(b[0], (b[1] - a[1]) / (b[0] - a[0])) for a, b in pairs if b[0] > a[0]] or [(0.0, 0.0)]


def thinned(points: Sequence[tuple[float, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """No more points than can be seen: of each stretch of time its lowest and its highest, in the order of time."""
    if len(points) <= most:
        return list(points)
    count = most // 2
    kept: list[tuple[float, float]] = []
    for index in range(count):
        stretch = points[index * len(points) // count : (index + 1) * len(points) // count]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept
