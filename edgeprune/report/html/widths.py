"""The network layer by layer: how wide it was and is, what went with a dropped block, what is frozen and why."""

from __future__ import annotations

from edgeprune.records.candidate import Candidate
from edgeprune.records.structure import Frozen, Layer, Structure
from edgeprune.report.html.chart import legend, percent
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View

__all__ = ["frozen", "widths"]

_OPEN = 60  # layers; the others are folded away
_ONE_COLUMN = 24
_NAMES = 12  # of a reason, shown at once


def widths(view: View) -> Html | None:
    """A bar per layer; None where the run's folder does not tell its layers or nothing was pruned."""
    if view.structure is None or view.best is None:
        return None
    structure, candidate = view.structure, view.best.candidate
    dropped = {
        layer: block.name
        for block in structure.blocks
        if block.name in candidate.dropped_blocks
        for layer in block.layers
    }
    widest = max((layer.width for layer in structure.layers), default=1)
    rows = [_row(layer, candidate, dropped.get(layer.name), widest) for layer in structure.layers]
    heading = tag("p", _summary(structure, candidate), class_="lead")
    key = [("kept", "kept"), ("gone", "removed"), ("still", "not narrowed")]
    if candidate.dropped_blocks:
        key.append(("dropped", "dropped with its block"))
    folded = None
    if len(rows) > _OPEN:
        more = tag("summary", f"the other {len(rows) - _OPEN} layers")
        folded = tag("details", more, tag("ul", rows[_OPEN:], class_="widths many"))
    return join(
        heading,
        legend(*key),
        tag("ul", rows[:_OPEN], class_="widths many" if len(rows) > _ONE_COLUMN else "widths"),
        folded,
        _sparsity(candidate),
    )


def _summary(structure: Structure, candidate: Candidate) -> str:
    inside = {layer for block in structure.blocks if block.name in candidate.dropped_blocks for layer in block.layers}
    left = [layer for layer in structure.layers if layer.name not in inside]
    narrowed = sum(layer.kept(candidate) < layer.width for layer in left)
    whole = sum(layer.width for layer in structure.layers)
    kept = sum(layer.kept(candidate) for layer in left)
    blocks = candidate.dropped_blocks
    gone = f", {_count(len(blocks), 'block')} dropped ({', '.join(blocks)})" if blocks else ""
    narrow = f"{narrowed} of {_count(len(structure.layers), 'layer')} narrowed{gone}"
    return f"{narrow}: {kept:,} of {whole:,} outputs are kept."


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _row(layer: Layer, candidate: Candidate, block: str | None, widest: int) -> Html:
    kept = 0 if block is not None else layer.kept(candidate)
    whole = 100.0 * layer.width / widest
    left = 100.0 * kept / widest
    if block is not None:
        kind, told = "dropped", "dropped"
    elif kept < layer.width:
        kind, told = "narrowed", f"{kept / layer.width * 100:.0f} %"
    else:
        kind, told = "still", "frozen" if layer.frozen else "whole"
    groups = ", ".join(dict.fromkeys(part.group for part in layer.parts))
    about = f"goes with the group {groups}" if groups else f"frozen: {layer.frozen}"
    if block is not None:
        about = f"dropped with the block {block}"
    bar = tag(
        "svg",
        tag("rect", x="0", y=2, width=percent(max(whole, 0.4)), height=12, rx=2, class_="whole"),
        tag("rect", x="0", y=2, width=percent(max(left, 0.4)), height=12, rx=2, class_="left") if kept else None,
        height=16,
        aria_hidden="true",
    )
    return tag(
        "li",
        tag("span", layer.name, class_="layer", title=about),
        bar,
        tag("span", f"{layer.width:,} → {kept:,}" if kept < layer.width else f"{layer.width:,}", class_="number"),
        tag("span", told, class_="quiet share", title=about),
        class_=kind,
        data_layer=layer.name,
        data_before=layer.width,
        data_after=kept,
    )


def _sparsity(candidate: Candidate) -> Html | None:
    if not candidate.sparsity:
        return None
    rows = [tag("li", tag("code", name), f": {pattern}") for name, pattern in candidate.sparsity.items()]
    return join(tag("h3", "Sparse weights"), tag("ul", rows, class_="plain"))


def frozen(view: View) -> Html | None:
    """By reason what could not be narrowed, and what the project left out; None where the folder does not tell."""
    structure = view.structure
    if structure is None:
        return None
    reasons: dict[str, list[Frozen]] = {}
    for entry in structure.frozen:
        reasons.setdefault(entry.reason or "no reason is known", []).append(entry)
    parts: list[Child] = [
        [tag("dt", reason, tag("span", f" ({len(entries)})", class_="quiet")), tag("dd", _names(entries))]
        for reason, entries in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    if structure.ignored:
        left_out = [tag("code", name) for name in structure.ignored]
        parts.append([tag("dt", "left out by the project (search.ignored)"), tag("dd", _spaced(left_out))])
    return tag("dl", parts, class_="frozen") if parts else tag("p", "Nothing is frozen.")


def _names(entries: list[Frozen]) -> Html:
    names = [tag("code", entry.name, title=f"{entry.units} units: {', '.join(entry.parameters)}") for entry in entries]
    if len(names) <= _NAMES:
        return _spaced(names)
    rest = tag("details", tag("summary", f"and {len(names) - _NAMES} more"), _spaced(names[_NAMES:]))
    return join(_spaced(names[:_NAMES]), rest)


def _spaced(names: list[Html]) -> Html:
    return join([[name, " "] for name in names])
