"""What a planning search knows before its first candidate: sensitivities, droppable blocks, and a cost model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.export.micro import micro_model
from edgeprune.measure.cost_cache import CostCache, timings
from edgeprune.pipeline.cost_tables import aligned
from edgeprune.pipeline.costs import Timer, cost_model, kept_timings
from edgeprune.pipeline.runtimes import RUNTIMES
from edgeprune.pipeline.sensitivity import with_sensitivities
from edgeprune.progress import SILENT, Progress
from edgeprune.records.budget import Budget
from edgeprune.records.operators import MicroModel, OperatorSignature, OperatorTiming
from edgeprune.search.base import GroupSpace, SearchSpace

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.measure.session import Session
    from edgeprune.pipeline.task import CheckedTask
    from edgeprune.records.figures import Figures

__all__ = ["COSTS", "SENSITIVITIES", "device_timer", "planned_space", "thinned"]

SENSITIVITIES = "sensitivities.json"
COSTS = "costs.json"
_MOST_WIDTHS = 16  # of a group


def planned_space(
    captured: Captured,
    task: CheckedTask,
    space: SearchSpace,
    *,
    budget: Budget,
    dense: Figures,
    session: Session,
    run_dir: Path,
    seed: int = 0,
    reuse: bool = False,
    bytes_each: float = 4,
    progress: Progress = SILENT,
) -> SearchSpace:
    """The space with what each choice loses and costs. With `reuse` what the run's folder has is taken from there.

    `dense` are the dense network's figures in the form that candidates are measured in, `bytes_each` what a parameter
    takes in their files.
    """
    from edgeprune.graph.shapes import inner_groups

    known = {group.name for group in space.groups}
    blocks = {name: tuple(g for g in groups if g in known) for name, groups in inner_groups(captured).items()}
    space = replace(space, groups=tuple(thinned(group) for group in space.groups))
    space = with_sensitivities(
        captured,
        task,
        space,
        run_dir / SENSITIVITIES,
        blocks=blocks,
        seed=seed,
        reuse=reuse,
        progress=progress,
    )
    timer = kept_timings(run_dir / COSTS, device_timer(session, progress), reuse=reuse, progress=progress)
    return replace(space, costs=cost_model(captured, space, budget, dense, timer, bytes_each=bytes_each))


def thinned(group: GroupSpace) -> GroupSpace:
    """The group with no more widths than a solver is quick with, the least and the dense one kept.

    What is in the search is timed, so that no knee is taken for granted.
    """
    return replace(group, widths=aligned(group.widths, _MOST_WIDTHS))


def device_timer(session: Session, progress: Progress = SILENT) -> Timer:
    """Times operators on the session's device: those that the user's cache does not know."""

    def timer(signatures: Sequence[OperatorSignature]) -> Mapping[str, OperatorTiming]:
        cache = CostCache.for_session(session)
        build, untimed = _micro_models(session.policy.runtime, signatures)
        known = [signature for signature in signatures if signature.key not in untimed]
        found = {**timings(session, known, cache, build=build, progress=progress), **untimed}
        for warning in cache.warnings:
            progress.say(f"warning: {warning}")
        return found

    return timer


def _micro_models(
    runtime: str, signatures: Sequence[OperatorSignature]
) -> tuple[Callable[[OperatorSignature], MicroModel], dict[str, OperatorTiming]]:
    """What makes the small models that a runtime is timed with, and the operators that it makes none of, by key."""
    if runtime in RUNTIMES["onnx"]:
        return micro_model, {}
    if runtime not in RUNTIMES["tflite"]:
        why = f"no files of one operator are made for {runtime}"
        return micro_model, {signature.key: OperatorTiming(error=why) for signature in signatures}
    from edgeprune.export.tflite_micro import TfliteMicroModels

    models = TfliteMicroModels()
    reasons = {signature.key: models.why_not(signature) for signature in signatures}
    return models, {key: OperatorTiming(error=reason) for key, reason in reasons.items() if reason}
