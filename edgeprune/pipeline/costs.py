"""Learn on the device what a candidate will cost: operators timed on their own, then a linear model of every figure.

The times are kept in the run's folder: a resumed run plans with the very same. Beyond a run they are in the user's
cache, by device and runtime, so that a second run measures only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.pipeline import cost_terms, size_terms
from edgeprune.pipeline.kept import keep, read_kept
from edgeprune.progress import SILENT, Progress
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.operators import OperatorSignature, OperatorTiming
from edgeprune.search.base import SearchSpace
from edgeprune.search.costs import CostModel, MetricModel

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.records.figures import Figures

__all__ = ["Timer", "cost_model", "kept_timings"]

SCHEMA = "edgeprune.costs/1"

Timer = Callable[[Sequence[OperatorSignature]], Mapping[str, OperatorTiming]]  # by the signature's key


def cost_model(
    captured: Captured,
    space: SearchSpace,
    budget: Budget,
    dense: Figures,
    time_operators: Timer,
    *,
    bytes_each: float = 4,
) -> CostModel:
    """A model of every figure that the budget limits on the device, and of the size; right for the dense model.

    `time_operators` gives the times of operators on the device; a failed one leaves its layer to a coarser guess.
    `bytes_each` is what a parameter takes in the file.
    """
    from edgeprune.graph.shapes import operator_shapes

    shapes = operator_shapes(captured)
    metrics: dict[str, MetricModel] = {}
    size = dense.get("size")
    if size is not None and size.value is not None:
        metrics["size"] = size_terms.size_model(shapes, space, size.value, bytes_each)
    figures = {limit.figure for limit in budget.limits if not limit.is_accuracy}
    timed = sorted(figure for figure in figures if figure == "energy" or figure.startswith("latency."))
    if timed:
        found = cost_terms.layers(shapes, space)
        terms, sums = cost_terms.latency_terms(shapes, found, time_operators(cost_terms.wanted(found)), space)
        for figure in timed:
            value = dense[figure].value if figure in dense else None
            if value is not None:
                metrics[figure] = _scaled(MetricModel(figure, terms, sums=sums), value)
    memory = dense.get("peak_memory")
    if "peak_memory" in figures and memory is not None and memory.value is not None:
        metrics["peak_memory"] = size_terms.memory_model(captured, shapes, space, memory.value)
    return CostModel(metrics)


def kept_timings(path: Path, time_operators: Timer, *, reuse: bool, progress: Progress = SILENT) -> Timer:
    """A timer that keeps in `path` what it was told, and with `reuse` asks only for what is not there."""

    def timer(signatures: Sequence[OperatorSignature]) -> Mapping[str, OperatorTiming]:
        known = read_kept(path, SCHEMA, "costs", _timings) if reuse and path.exists() else {}
        new = [signature for signature in signatures if signature.key not in known]
        if new:
            progress.say(f"{len(new)} operators to be timed")
            known.update(time_operators(new))
            entries = {
                key: {"ns": timing.ns, "run_ns": timing.run_ns, "runs": timing.runs, "error": timing.error}
                for key, timing in known.items()
            }
            keep(path, SCHEMA, operators=entries)
        return known

    return timer


def _scaled(metric: MetricModel, dense: float) -> MetricModel:
    """All weights by the same factor, so that the dense model is predicted as it was measured.

    Conversions of layouts weigh nothing until whole models show them: most runtimes do without.
    """
    kinds = sorted({term.kind for term in metric.terms})
    weights = {kind: float(not kind.startswith(cost_terms.MISALIGNED)) for kind in kinds}
    predicted = replace(metric, weights=weights).predict(Candidate())
    factor = dense / predicted if predicted > 0 else 1.0
    return replace(metric, weights={kind: weight * factor for kind, weight in weights.items()})


def _timings(data: Any) -> dict[str, OperatorTiming]:
    return {
        key: OperatorTiming(kernel_ns=entry["ns"], run_ns=entry["run_ns"], runs=entry["runs"], error=entry["error"])
        for key, entry in data["operators"].items()
    }
