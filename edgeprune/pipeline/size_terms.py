"""From the operators of a captured graph to the bytes that its file and its memory take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.pipeline.cost_terms import table_of
from edgeprune.records.candidate import Candidate
from edgeprune.search.base import SearchSpace
from edgeprune.search.costs import MetricModel, Term

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.graph.shapes import OperatorShape
    from edgeprune.graph.sizes import Size

__all__ = ["memory_model", "size_model"]

_BYTES = 4  # of a parameter, float32
_MEMORY_WEIGHTS = {"weights": 2.5, "activations": 1.0}  # bytes per byte, to start with: read, and packed


def size_model(
    shapes: Sequence[OperatorShape], space: SearchSpace, dense_bytes: float, each: float = _BYTES
) -> MetricModel:
    """The artifact's size in bytes: its parameters, `each` of so many, and what the dense file has besides them.

    The latter is the text of the graph: it is shared out evenly among the operators, and goes with them.
    """
    widths = {group.name: group.widths for group in space.groups}
    terms: list[Term] = []
    for name, (size, blocks) in _parameters(shapes).items():
        for number, piece in enumerate(size.pieces()):
            terms.extend(table_of(f"{name}:{number}", "parameters", piece, widths, each=each, blocks=blocks))
    if not terms:
        return MetricModel("size", ())
    besides = dense_bytes - sum(float(term.table[(-1,) * term.table.ndim]) for term in terms)
    written = [shape for shape in shapes if not shape.folded]
    share = besides / (len(written) + 1)  # inputs, outputs and versions are about one operator's text
    if share <= 0:
        return MetricModel("size", tuple(terms), offset=besides)
    terms.extend(Term(f"{shape.node}:text", "text", (), (), np.array(share), shape.blocks) for shape in written)
    return MetricModel("size", tuple(terms), offset=share)


def memory_model(captured: Captured, shapes: Sequence[OperatorShape], space: SearchSpace, dense: float) -> MetricModel:
    """Peak memory in bytes: the weights (as often as the runtime holds them), the largest step, and a constant.

    How many bytes of a process a byte of weights or of activations costs is corrected by what is measured.
    """
    from edgeprune.graph.schedule import schedule

    widths = {group.name: group.widths for group in space.groups}
    terms = tuple(replace(term, kind="weights") for term in size_model(shapes, space, 0.0).terms)
    steps = []
    for step in schedule(captured).steps:
        live: list[Term] = []
        for tensor in step.live:
            for number, piece in enumerate(tensor.bytes.pieces()):
                name = f"{tensor.node}:{number}"
                live.extend(table_of(name, "activations", piece, widths, each=1, blocks=tensor.blocks))
        steps.append(tuple(live))
    model = MetricModel("peak_memory", terms, tuple(steps), dict(_MEMORY_WEIGHTS))
    predicted = model.predict(Candidate())
    if predicted <= dense:
        return replace(model, offset=dense - predicted)
    return replace(model, weights={kind: weight * dense / predicted for kind, weight in _MEMORY_WEIGHTS.items()})


def _parameters(shapes: Iterable[OperatorShape]) -> dict[str, tuple[Size, tuple[str, ...]]]:
    """Every parameter once; it goes with the blocks that all of its readers go with."""
    from edgeprune.graph.sizes import product as elements

    found: dict[str, tuple[Size, tuple[str, ...]]] = {}
    for shape in shapes:
        # What is folded away leaves one number per channel: the bias of the layer before.
        for name, dims in shape.parameters[:1] if shape.folded else shape.parameters:
            blocks = shape.blocks
            if name in found:
                blocks = tuple(block for block in found[name][1] if block in blocks)
            found[name] = (elements(dims), blocks)
    return found
