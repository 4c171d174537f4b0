"""A sweep as a picture: accuracy against each figure, measured; what was predicted only as faint crosses beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_plot", "draw"]

_SUFFIXES = (".png", ".svg")
_UNITS = {"latency": ("ms", 1.0), "peak_memory": ("MB", 1e-6), "size": ("kB", 1e-3), "energy": ("mJ", 1.0)}


def check_plot(path: Path) -> None:
    """Refuse a picture that could not be drawn or written; raises UsageError."""
    if path.suffix not in _SUFFIXES:
        raise UsageError(
            f"{path.name}: a picture is a {' or '.join(_SUFFIXES)} file",
            hint=f"name it {path.with_suffix('.png').name}",
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.absolute().parent} to write {path.name} to")
    if find_spec("matplotlib") is None:
        raise UsageError(
            "pictures are drawn by matplotlib, which is not installed",
            hint="pip install 'edgeprune[plot]', or leave out --plot: sweep.json holds all figures",
        )


def draw(sweep: Mapping[str, Any], path: Path) -> None:
    """Draw what `sweep.json` holds into a .png or .svg file; the same file for the same sweep. Raises UsageError."""
    check_plot(path)
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    points: Sequence[Mapping[str, Any]] = sweep["points"]
    dense = sweep["dense"]
    names = points[0]["dominated_by"] if points else ()
    shown = [name for name in names if _place(dense, name, 1.0) is not None]
    if not shown:
        raise UsageError("there is nothing to draw: no point, or no measured figure of the dense model")
    with mpl.rc_context({"svg.hashsalt": "edgeprune", "font.size": 9}):
        picture = Figure(figsize=(4.2 * len(shown), 3.6), layout="constrained")
        axes = picture.subplots(1, len(shown), squeeze=False)[0]
        for axis, name in zip(axes, shown, strict=True):
            _panel(axis, name, dense, points)
        axes[0].set_ylabel("accuracy, %")
        axes[0].legend(loc="lower right", fontsize=8)
        buffer = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        picture.savefig(buffer, format=path.suffix[1:], dpi=150, metadata=metadata)
    atomic.write_bytes(path, buffer.getvalue())


def _panel(axis: Axes, name: str, dense: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> None:
    unit, factor = _UNITS[name.partition(".")[0]]
    networks = {point["trial"]: point for point in reversed(points) if point["trial"] != dense["trial"]}.values()
    front: list[tuple[float, float]] = []
    beaten: list[tuple[float, float]] = []
    for point in networks:
        place = _place(point, name, factor)
        if place is not None:
            (front if point["dominated_by"][name] is None else beaten).append(place)
    predicted = [
        (point["predicted"][name]["value"] * factor, point["measured"]["accuracy"]["value"] * 100)
        for point in networks
        if name in point["predicted"] and _place(point, name, factor) is not None
    ]
    whole = _place(dense, name, factor)
    if predicted:
        axis.plot(*zip(*predicted, strict=True), "x", color="0.7", label="predicted, before it was measured")
    if beaten:
        axis.plot(*zip(*beaten, strict=True), "o", color="0.5", fillstyle="none", label="measured, dominated")
    if front:
        axis.plot(*zip(*sorted(front), strict=True), "o-", color="C0", label="measured")
    if whole is not None:
        axis.plot(*whole, "*", color="C1", markersize=11, label="dense, measured")
    axis.set_xlabel(f"{name.replace('.', ' ').replace('_', ' ')}, {unit}")
    axis.grid(visible=True, alpha=0.3)


def _place(point: Mapping[str, Any], name: str, factor: float) -> tuple[float, float] | None:
    """(figure, accuracy in %) as measured; None where one is missing."""
    figure, accuracy = point["measured"].get(name), point["measured"].get("accuracy")
    if figure is None or accuracy is None or figure["value"] is None or accuracy["value"] is None:
        return None
    return figure["value"] * factor, accuracy["value"] * 100
