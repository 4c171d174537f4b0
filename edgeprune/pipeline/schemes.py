"""Which int8 scheme a run uses: each is tried once on the dense model, on the device, before the search.

What computes something else there than here is out. Of those that keep the accuracy the fastest is chosen, measured in
turn with the float model; of several that are not told apart the most accurate; where none keeps it, too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import CannotMeasureError, UsageError
from edgeprune.pipeline.in_turn import compared
from edgeprune.pipeline.kept import keep, read_kept
from edgeprune.pipeline.quantisation import Quantisation, calibration_of, device_difference, quantise, quantizer_of
from edgeprune.pipeline.quantisation import scheme_of as scheme_named
from edgeprune.progress import SILENT, Progress
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage
from edgeprune.units import format_points

if TYPE_CHECKING:
    from edgeprune.measure.session import Session
    from edgeprune.pipeline.building import Builder
    from edgeprune.records.artifact import Artifact
    from edgeprune.records.project import ExportSettings

__all__ = ["QUANTISATION", "Tried", "chosen", "quantisation"]

QUANTISATION = "quantisation.json"
SCHEMA = "edgeprune.quantisation/1"
_DROP = 0.01  # of the metric: a scheme that costs no more is chosen for its speed


@dataclass(frozen=True, slots=True)
class Tried:
    """One scheme on the dense model. `ratio` is its latency by that of the float file, measured in turn.

    `refused` says why it is out; `difference` is that of the device's outputs to this machine's, by the largest.
    """

    scheme: str  # its key
    accuracy: float | None = None
    float_accuracy: float | None = None
    sqnr_db: float | None = None
    size_bytes: int | None = None
    ratio: float | None = None
    lower: float | None = None
    upper: float | None = None
    difference: float | None = None
    refused: str = ""


def quantisation(
    builder: Builder,
    settings: ExportSettings,
    budget: Budget,
    session: Session,
    folder: Path,
    *,
    reuse: bool,
    progress: Progress = SILENT,
) -> tuple[Quantisation, dict[str, Any]]:
    """How the run's networks become int8, and what was found of each scheme, as data for the result.

    What was tried is kept in `folder`, and with `reuse` taken from there. Raises UsageError where int8 cannot be made
    or the device computes something else, CannotMeasureError, TaskError.
    """
    captured, task = builder.captured, builder.task
    quantizer = quantizer_of(settings.format)
    calibration = calibration_of(captured, task, settings.calibration, builder.seed)
    path = folder / QUANTISATION
    if reuse and path.exists():
        tried = read_kept(path, SCHEMA, "schemes", lambda data: [Tried(**entry) for entry in data["tried"]])
    else:
        wanted = quantizer.schemes if settings.scheme is None else (scheme_named(quantizer, settings.scheme),)
        plans = [Quantisation(quantizer, scheme, calibration) for scheme in wanted]
        tried = _try(builder, plans, session, progress)
        keep(path, SCHEMA, tried=[asdict(entry) for entry in tried])
    best = chosen(tried)
    progress.say(f"int8: {scheme_named(quantizer, best.scheme).name}{_why(best)}")
    dense = {"accuracy": Figure(best.float_accuracy)}
    bounds = [bound for limit in budget.limits if limit.is_accuracy and (bound := limit.bound(dense)) is not None]
    least = max(bounds, default=None)
    how = Quantisation(quantizer, scheme_named(quantizer, best.scheme), calibration, least)
    return how, {
        "scheme": best.scheme,
        "calibrated_on": calibration.origin,
        "tried": [asdict(entry) for entry in tried],
    }


def chosen(tried: Sequence[Tried]) -> Tried:
    """The scheme to use, by the rule above; raises UsageError where all are out, with the reasons."""
    usable = [entry for entry in tried if not entry.refused]
    if not usable:
        reasons = "; ".join(f"{entry.scheme}: {entry.refused}" for entry in tried)
        raise UsageError(f"int8 is of no use on this device: {reasons}", hint="write export: {quantize: none}")
    kept = [entry for entry in usable if _drop(entry) <= _DROP]
    timed = [entry for entry in kept if entry.ratio is not None]
    if not timed:
        return min(kept or usable, key=lambda entry: (_drop(entry), -(entry.sqnr_db or 0.0)))
    fastest = min(timed, key=lambda entry: entry.ratio or 0.0)
    alike = [entry for entry in timed if (entry.lower or 0.0) <= (fastest.upper or 0.0)]
    return min(alike, key=lambda entry: (_drop(entry), entry.ratio or 0.0))


def _try(builder: Builder, plans: Sequence[Quantisation], session: Session, progress: Progress) -> list[Tried]:
    from edgeprune.pipeline.building import artifact_path
    from edgeprune.pipeline.export import export

    with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
        with progress.step("exporting the dense model"):
            path = artifact_path(Path(name), builder.format)
            source = export(builder.captured, path, format=builder.format)
        with progress.step("evaluating"):
            dense = builder.accuracy(builder.captured, Candidate())
        found = []
        for plan in plans:
            tried = Tried(plan.scheme.key, float_accuracy=dense)
            if session.policy.runtime in plan.scheme.garbage_on:
                why = f"{session.policy.runtime} is known to compute something else"
                found.append(replace(tried, refused=why))
                continue
            with progress.step(f"trying {plan.scheme.name}"):
                found.append(_one(builder, plan, source, session, tried))
    return found


def _one(builder: Builder, plan: Quantisation, source: Artifact, session: Session, tried: Tried) -> Tried:
    path = source.path.with_stem(f"{source.path.stem}-{plan.scheme.key}")
    try:
        made = quantise(builder.captured, source, path, plan)
    except UsageError as error:
        return replace(tried, refused=error.message)
    tried = replace(
        tried,
        accuracy=builder.metric(made.module, Candidate()),
        sqnr_db=made.sqnr_db,
        size_bytes=made.artifact.size_bytes,
    )
    feeds = made.module.one_batch(builder.captured.example_inputs)
    difference, why = device_difference(session, made.artifact, feeds, made.module.run(feeds))
    tried = replace(tried, difference=difference, refused=why)
    if why:
        return tried
    (found,) = compared(session, made.artifact, source, Stage.MEASURE).values()
    if not found.outcome.is_result:
        raise CannotMeasureError(
            f"int8 could not be measured on {session.target.name}: {found.outcome.value}: {found.message}",
            hint="`edgeprune device check` looks for the cause",
            outcome=found.outcome.value,
        )
    return replace(tried, ratio=found.ratio, lower=found.lower, upper=found.upper)


def _drop(entry: Tried) -> float:
    return max(0.0, (entry.float_accuracy or 0.0) - (entry.accuracy or 0.0))


def _why(best: Tried) -> str:
    if best.ratio is None or best.accuracy is None:
        return ""
    return f": {best.ratio:.3f} of the float model's latency, accuracy {format_points(-_drop(best))}"
