"""From the operators of a captured graph and their times on a device to the linear cost model of a search.

Contractions (convolutions, linear layers, matrix products, attention) cost what their micro-benchmarks say beyond one
of nothing, as tables over the widths of the one or two groups that they depend on. All else costs by the elements that
it writes; what each such kind costs per element, and by how much a table is off inside a whole model, are weights per
kind that whole models measured on the device correct.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune.pipeline.cost_tables import everywhere, filled, interpolated, on_lines, spread
from edgeprune.pipeline.signatures import signature_of
from edgeprune.records.operators import ConvSignature, LinearSignature, OperatorSignature, OperatorTiming
from edgeprune.search.base import SearchSpace
from edgeprune.search.costs import Sum, Term

if TYPE_CHECKING:
    from edgeprune.graph.shapes import OperatorShape
    from edgeprune.graph.sizes import Size

__all__ = ["MISALIGNED", "NOTHING", "Layer", "latency_terms", "layers", "table_of", "wanted"]

# What it takes is the call of a model and, where there is one, the profiler: all other timings have them in themselves.
NOTHING = LinearSignature(rows=1, in_features=1, out_features=1)
_MOST_SUMS = 40  # values of a width that several groups add up to
_MOST_PER_AXIS = 16  # widths of a group at which an operator is timed; between them it is interpolated
_MOST_TIMED = 400  # operators that are timed at every pair of widths: some 100 s
_MS_PER_NS = 1e-6
_MS_PER_ELEMENT = 2e-7  # of what is no contraction, to start with: about a cache's bandwidth
_MS_PER_CALL = 1e-3  # of a kernel's call, to start with
MISALIGNED = "misaligned"  # what the kinds of `_misaligned` begin with
_ALIGNMENTS = (4, 8, 16, 32)  # of channels; a runtime may convert layouts where a width is no multiple
_CONTRACTIONS = frozenset(
    {"conv", "depthwise", "grouped", "conv_transpose", "linear", "matmul", "attention"}
)  # fmt: skip

_Grid = tuple[tuple[int, ...], ...]
_Places = Callable[[_Grid], _Grid]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A contraction (or a part of one) that is timed: its signatures at a grid of widths of its groups."""

    name: str
    kind: str
    groups: tuple[str, ...]
    grid: tuple[tuple[int, ...], ...]  # per group the widths that are timed
    signatures: Mapping[tuple[int, ...], OperatorSignature]  # everywhere in the grid, or on lines
    blocks: tuple[str, ...]

    def times(self, timings: Mapping[str, OperatorTiming]) -> NDArray[np.float64]:
        """In ns over the grid, by the signatures' keys; NaN where there is none."""
        found = np.full([len(axis) for axis in self.grid], np.nan)
        for place, signature in self.signatures.items():
            timing = timings.get(signature.key)
            if timing is not None and timing.ns is not None:
                found[tuple(axis.index(width) for axis, width in zip(self.grid, place, strict=True))] = timing.ns
        return found


def layers(shapes: Sequence[OperatorShape], space: SearchSpace) -> tuple[Layer, ...]:
    """What is to be timed: no operators of more than two groups, and none that no micro model is made of.

    A width that several groups add up to counts as one, where it has not too many values; otherwise the operator is
    taken apart. Where all pairs of widths together are too many, an operator of two is timed along a few lines.
    """
    found = _layers(shapes, space, on_lines)
    pairs: dict[str, int] = {}  # by the dense operator: layers of the same are timed once
    for layer in found:
        dense = layer.signatures[tuple(axis[-1] for axis in layer.grid)].key
        pairs[dense] = max(pairs.get(dense, 0), math.prod(map(len, layer.grid)))
    return _layers(shapes, space, everywhere) if sum(pairs.values()) <= _MOST_TIMED else found


def _layers(shapes: Iterable[OperatorShape], space: SearchSpace, places: _Places) -> tuple[Layer, ...]:
    axes = _Axes(space)
    found = []
    for shape in shapes:
        if shape.folded or shape.fused or shape.kind not in _CONTRACTIONS:
            continue
        whole = _summed(shape, axes, places)
        if whole is not None:
            found.append(whole)
            continue
        for number, part in enumerate(shape.parts()):
            groups = tuple(group for group in part.groups if group in axes.widths)
            if len(groups) > 2:
                continue
            grid = tuple(spread(axes.widths[group], _MOST_PER_AXIS) for group in groups)
            asked = places(grid)
            signatures = {
                place: signature
                for place in asked
                if (signature := signature_of(part.at(dict(zip(groups, place, strict=True))))) is not None
            }
            if len(signatures) == len(asked):
                name = shape.node if number == 0 else f"{shape.node}:{number + 1}"
                found.append(Layer(name, shape.kind, groups, grid, signatures, shape.blocks))
    return tuple(found)


def _summed(shape: OperatorShape, axes: _Axes, places: _Places) -> Layer | None:
    """The operator over the sums that its channels are; None where no channels are a sum, or have too many values."""
    if shape.kind not in ("conv", "conv_transpose", "linear"):
        return None
    sizes = [shape.dims["inputs"], shape.dims["outputs"]]
    if all(len(axes.of(size)) < 2 for size in sizes):
        return None
    sums = [axes.sum(size) for size in sizes]
    if any(total is None for total in sums) or {*shape.groups} - {g for size in sizes for g in size.groups}:
        return None
    base = signature_of(shape.at())
    names = tuple(total.name for total in sums if total is not None and total.parts)
    grid = tuple(spread(total.widths, _MOST_PER_AXIS) for total in sums if total is not None and total.parts)
    fixed = [None if total is None or total.parts else total.constant for total in sums]
    signatures: dict[tuple[int, ...], OperatorSignature] = {}
    for place in places(grid):
        left = iter(place)
        given, made = (next(left) if value is None else value for value in fixed)
        if isinstance(base, ConvSignature):
            signatures[place] = replace(base, in_channels=given, out_channels=made)
        elif isinstance(base, LinearSignature):
            signatures[place] = replace(base, in_features=given, out_features=made)
        else:
            return None
    return Layer(shape.node, shape.kind, names, grid, signatures, shape.blocks)


class _Axes:
    """The widths that terms may be tables over: of groups, and of sums of groups."""

    def __init__(self, space: SearchSpace) -> None:
        self.widths = {group.name: group.widths for group in space.groups}
        self.sums: dict[str, Sum] = {}

    def of(self, size: Size) -> tuple[str, ...]:
        """The groups of the search that a size depends on."""
        return tuple(group for group in size.groups if group in self.widths)

    def sum(self, size: Size) -> Sum | None:
        """The size as a sum of groups (of one group, or none, too); None where it is no sum of whole numbers."""
        if not size.exact or any(len(groups) > 1 or int(value) != value for groups, value in size.terms):
            return None
        parts, constant = [], 0
        for groups, value in size.terms:
            if groups and groups[0] in self.widths:
                parts.append((groups[0], int(value), self.widths[groups[0]]))
            else:  # a constant, or a group that stays dense
                constant += int(value) * (size.units[groups[0]] if groups else 1)
        name = " + ".join([f"{each} {group}" for group, each, _ in parts] + [str(constant)])
        total = Sum(name, tuple(parts), constant)
        if len(total.widths) > _MOST_SUMS:
            return None
        return self.sums.setdefault(name, total)


def wanted(found: Iterable[Layer]) -> tuple[OperatorSignature, ...]:
    """Every signature once, in the order of the graph; after that of nothing, where there are any."""
    unique = {s.key: s for layer in found for s in layer.signatures.values()}
    return tuple({NOTHING.key: NOTHING, **unique}.values()) if unique else ()


def latency_terms(
    shapes: Sequence[OperatorShape],
    found: Sequence[Layer],
    timings: Mapping[str, OperatorTiming],
    space: SearchSpace,
) -> tuple[tuple[Term, ...], tuple[Sum, ...]]:
    """The terms of a latency in ms, to be weighted per kind, and the sums that they name.

    `timings` are by the key of the signature. A layer whose timings failed where the others do not tell them is left to
    its elements, as what is no contraction.
    """
    axes = _Axes(space)
    widths = axes.widths
    for shape in shapes:  # the sums that `layers` made of these
        for size in shape.dims.values():
            axes.sum(size)
    nothing = timings.get(NOTHING.key)
    idle_ns = (nothing.ns if nothing is not None else None) or 0.0
    terms: list[Term] = []
    timed: set[str] = set()
    for layer in found:
        values = filled(np.maximum(layer.times(timings) - idle_ns, 0.0) * _MS_PER_NS, layer.grid)
        if values is None:
            continue
        timed.add(layer.name.partition(":")[0])
        wished = tuple(axes.sums[name].widths if name in axes.sums else widths[name] for name in layer.groups)
        table = interpolated(values, layer.grid, wished)
        terms.append(Term(layer.name, layer.kind, layer.groups, wished, table, layer.blocks))
    for shape in shapes:
        if shape.folded or shape.fused:
            continue
        if shape.node not in timed:
            terms.extend(_elements(shape, widths))
        if shape.kind in _CONTRACTIONS and "outputs" in shape.dims:
            terms.extend(_misaligned(shape, axes))
    terms.extend(_calls(shapes))
    named = {name for term in terms for name in term.groups}
    return tuple(terms), tuple(total for name, total in axes.sums.items() if name in named)


def _elements(shape: OperatorShape, widths: Mapping[str, tuple[int, ...]]) -> Iterator[Term]:
    for number, piece in enumerate(shape.elements.pieces()):
        name = f"{shape.node}:{number}"
        yield from table_of(name, shape.kind, piece, widths, each=_MS_PER_ELEMENT, blocks=shape.blocks)


def _misaligned(shape: OperatorShape, axes: _Axes) -> Iterator[Term]:
    """The elements that the operator writes where its width is no multiple of an alignment."""
    total = axes.sum(shape.dims["outputs"])
    if total is None or not total.parts or set(axes.of(shape.elements)) != {part[0] for part in total.parts}:
        return
    dense = shape.elements.at() / total.widths[-1]
    for alignment in _ALIGNMENTS:
        odd = [width % alignment != 0 for width in total.widths]
        if any(odd):
            table = np.where(odd, dense * np.asarray(total.widths, dtype=np.float64), 0.0) * _MS_PER_ELEMENT
            name, kind = f"{shape.node}:{alignment}", f"{MISALIGNED}{alignment}"
            yield Term(name, kind, (total.name,), (total.widths,), table, shape.blocks)


def _calls(shapes: Iterable[OperatorShape]) -> Iterator[Term]:
    """One call per operator that is left."""
    for shape in shapes:
        if not (shape.folded or shape.fused):
            yield Term(f"{shape.node}:call", "call", (), (), np.array(_MS_PER_CALL), shape.blocks)


def table_of(
    name: str, kind: str, size: Size, widths: Mapping[str, tuple[int, ...]], *, each: float, blocks: tuple[str, ...]
) -> Iterator[Term]:
    """A size times `each`, over the allowed widths of its groups; nothing for more than two of them."""
    groups = tuple(group for group in size.groups if group in widths)
    axes = tuple(widths[group] for group in groups)
    if len(groups) > 2:
        return
    table = np.empty([len(axis) for axis in axes])
    for place in np.ndindex(*table.shape):
        kept = {group: axis[i] for group, axis, i in zip(groups, axes, place, strict=True)}
        table[place] = size.at(kept) * each
    yield Term(name, kind, groups, axes, table, blocks)
