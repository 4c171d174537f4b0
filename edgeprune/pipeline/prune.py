"""Prune by ratio, without a device (`edgeprune prune`).

capture -> scores -> surgery -> verification -> reconstruction, if asked -> fidelity, if there is data -> files
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import TaskError, UsageError
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.graph.selection import Compare
    from edgeprune.pipeline.calibration import Batch
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["SCHEMA", "check_request", "prune"]

SCHEMA = "edgeprune.prune/1"


def prune(
    captured: Captured,
    output: str | Path,
    *,
    ratio: float,
    importance: str = "l2",
    compare: Compare = "layer",
    ignored: Sequence[str] = (),
    min_width: int = 1,
    min_share: float = 0.0,
    round_to: int | Mapping[str, int] = 1,
    seed: int = 0,
    dropped_blocks: Sequence[str] = (),
    calibration: str | Path | None = None,
    reconstruct: bool = False,
    export_to: str | Path | None = None,
    task: CheckedTask | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Remove the share `ratio` of the units and the named blocks, verify, write the `.pt2` and, if asked, the artifact.

    Which units is said as for `Captured.select`; `task` gives the data that some importances need. Returns a plain
    mapping: candidate, groups with units before and after, params, macs, peak activation bytes before and after, the
    verification's relative error, and the paths. `calibration` is a file of examples (`load_calibration`): the mapping
    then tells how close the outputs are to the dense ones. `reconstruct` fits the layers that lost inputs to the dense
    network's outputs, on these examples or else on the task's batches; the mapping then says per layer what it did,
    and the fidelity is that on examples that nothing was fitted to. Raises UsageError, TaskError, VerificationError,
    ParityError, StorageError.
    """
    from edgeprune.importance.base import ImportanceContext
    from edgeprune.pipeline.calibration import load_calibration
    from edgeprune.pipeline.export import export, format_of
    from edgeprune.recovery.reconstruct import held_back

    output = Path(output)
    check_request(output, export_to, importance=importance, round_to=round_to, calibration=calibration)
    trainable = task is not None and task.trainable
    if reconstruct and not trainable and calibration is None:
        raise TaskError(
            "reconstruction needs data, and the source has no train_batches() and loss()",
            hint="give examples (--calibration FILE), prune a task that has both, or leave out --reconstruct",
        )
    examples = None
    if calibration is not None:
        with progress.step("reading the calibration data"):
            examples = load_calibration(Path(calibration), captured)
    context = ImportanceContext(
        seed=seed,
        batches=task.train_batches if task is not None and trainable else None,
        loss=task.loss if task is not None and trainable else None,
        progress=progress,
    )
    with progress.step("prune and verify"):
        candidate = captured.select(
            ratio,
            importance=importance,
            compare=compare,
            ignored=ignored,
            min_width=min_width,
            min_share=min_share,
            round_to=round_to,
            context=context,
        )
        candidate = captured.candidate(candidate.kept, dropped_blocks=dropped_blocks)
        pruned = captured.prune(candidate)
    judges = [batch for number, batch in enumerate(examples or ()) if held_back(number) or not reconstruct]
    fidelity = _fidelity(pruned, captured, judges) if judges else None
    reconstruction = None
    source = task if examples is None else examples
    if reconstruct and source is not None:
        reconstruction = _reconstructed(pruned, captured, source, seed, progress)
        if fidelity is not None:
            fidelity |= {"held_back": True, "reconstructed": _fidelity(pruned, captured, judges)["pruned"]}
    pruned.save(output)
    artifact = None
    if export_to is not None:
        with progress.step(f"export {Path(export_to).name}"):
            artifact = export(pruned, export_to, format=format_of(Path(export_to)))
    before, after = captured.cost(), pruned.cost()
    return {
        "schema": SCHEMA,
        "ratio": ratio,
        "importance": importance,
        "compare": compare,
        "ignored": list(ignored),
        "min_width": min_width,
        "min_share": min_share,
        "round_to": {"*": round_to} if isinstance(round_to, int) else dict(round_to),
        "seed": seed,
        "candidate": candidate.id,
        "dropped_blocks": list(candidate.dropped_blocks),
        "groups": [
            {"name": g.name, "units": g.units, "kept": len(candidate.kept.get(g.name, range(g.units)))}
            for g in captured.groups
        ],
        "frozen": [{"name": g.name, "units": g.units, "reason": g.frozen} for g in captured.frozen],
        "params": {"before": before.params, "after": after.params},
        "macs": {"before": before.macs, "after": after.macs},
        "macs_leave_out": list(before.uncounted),
        "peak_activation_bytes": {"before": before.peak_activation_bytes, "after": after.peak_activation_bytes},
        "verification_error": None if pruned.verification is None else pruned.verification.relative_error,
        "reconstruction": reconstruction,
        "fidelity": fidelity,
        "output": str(output),
        "artifact": None if artifact is None else str(artifact.path),
        "parity_error": None if artifact is None else artifact.provenance["parity_error"],
    }


def _fidelity(pruned: Pruned, captured: Captured, batches: Sequence[Batch]) -> dict[str, Any]:
    from edgeprune.pipeline.fidelity import fidelity

    return {
        "examples": sum(len(batch[0]) if batch[0].dim() else 1 for batch in batches),
        "held_back": False,
        "pruned": [asdict(output) for output in fidelity(pruned, captured, batches)],
        "reconstructed": None,
    }


def _reconstructed(
    pruned: Pruned, captured: Captured, source: CheckedTask | Sequence[Batch], seed: int, progress: Progress
) -> dict[str, Any]:
    from edgeprune.recovery.reconstruct import reconstruct
    from edgeprune.training_data import reproducible

    with reproducible(seed):
        if isinstance(source, Sequence):  # in memory already, all of it
            done = reconstruct(pruned, captured, source, max_batches=len(source), seed=seed, progress=progress)
        else:
            done = reconstruct(pruned, captured, source.train_batches(), loss=source.loss, seed=seed, progress=progress)
    return {
        "batches": done.batches,
        "seconds": done.seconds,
        "layers": [
            {
                "name": layer.name,
                "error_before": layer.error_before,
                "error_after": layer.error_after,
                "note": layer.note,
                "seconds": layer.seconds,
            }
            for layer in done.layers
        ],
    }


def check_request(
    output: Path,
    export_to: str | Path | None = None,
    *,
    importance: str = "l2",
    round_to: int | Mapping[str, int] = 1,
    calibration: str | Path | None = None,
) -> None:
    """Refuse what can be refused before there is a model: names of files, their folders, settings; UsageError."""
    from edgeprune import registry
    from edgeprune.pipeline.calibration import check_file
    from edgeprune.pipeline.export import check_folder, check_output, format_of

    registry.create("importances", importance)
    if calibration is not None:
        check_file(Path(calibration))
    if output.suffix != ".pt2":
        hint = f"name it {output.with_suffix('.pt2').name}"
        raise UsageError(f"{output.name}: the pruned model is written as a .pt2 file", hint=hint)
    check_folder(output)
    if export_to is not None:
        check_output(Path(export_to), format_of(Path(export_to)))
    for channels in [round_to] if isinstance(round_to, int) else round_to.values():
        if channels < 1:
            raise UsageError(f"widths cannot be rounded to multiples of {channels}", hint="1 does not round")
