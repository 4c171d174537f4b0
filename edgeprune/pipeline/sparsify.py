"""Fine-pruning (`edgeprune sparsify`).

capture -> scores -> masks -> fine-tuning, if asked -> plain zeros -> files -> what it is worth, measured
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import TaskError, UsageError
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.pipeline.task import CheckedTask
    from edgeprune.sparsity.criteria import Criterion
    from edgeprune.sparsity.patterns import Scope

__all__ = ["SCHEMA", "sparsify"]

SCHEMA = "edgeprune.sparsify/1"


def sparsify(
    captured: Captured,
    output: str | Path,
    *,
    pattern: str,
    ratio: float | None = None,
    criterion: Criterion = "magnitude",
    scope: Scope | None = None,
    ignored: Sequence[str] = (),
    epochs: int = 0,
    seed: int = 0,
    export_to: str | Path | None = None,
    compressed: bool = False,
    target: str | None = None,
    profile: str | Path = "host",
    task: CheckedTask | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Make single weights zero, fine-tune with the zeros held for `epochs`, write the `.pt2` with plain zeros.

    With `export_to` the artifact is written there, and `compressed` as a .sparse file beside it; with `target` dense
    and sparse artifact are compared on that device. Returns a plain mapping: share of zeros per weight, accuracy before
    and after where the task tells it, the paths, and what it is worth. Raises UsageError, TaskError, TargetError,
    ParityError, StorageError.
    """
    from edgeprune.export.sparse_file import pack
    from edgeprune.pipeline.export import export, format_of
    from edgeprune.pipeline.prune import check_request
    from edgeprune.pipeline.worth import compressed_sizes, worth
    from edgeprune.sparsity.masks import make_permanent, zero_shares
    from edgeprune.sparsity.masks import sparsify as masked
    from edgeprune.training_data import ImportanceContext

    output = Path(output)
    check_request(output, export_to, importance="l2", round_to=1)
    if compressed and export_to is None:
        raise UsageError("there is no file to be stored compressed", hint="name one: --onnx sparse.onnx --compressed")
    trainable = task is not None and task.trainable
    if epochs and not trainable:
        raise TaskError(
            "fine-tuning needs data, and the source has no train_batches() and loss()",
            hint="sparsify a task that has both, or leave out --epochs",
        )
    context = ImportanceContext(
        seed=seed,
        batches=task.train_batches if task is not None and trainable else None,
        loss=task.loss if task is not None and trainable else None,
        progress=progress,
    )
    with progress.step("masking weights"):
        sparse = masked(
            captured, pattern, ratio=ratio, criterion=criterion, scope=scope, ignored=ignored, context=context
        )
    accuracy = _accuracies(captured, sparse, task, epochs=epochs, seed=seed, progress=progress)
    plain = make_permanent(sparse)
    plain.save(output)
    artifact, value, packed = None, None, None
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        if export_to is not None or target is not None:
            path = Path(folder) / "sparse.onnx" if export_to is None else Path(export_to)
            with progress.step(f"export {path.name}"):
                artifact = export(plain, path, format=format_of(path))
        if compressed and artifact is not None:
            with progress.step("compressing"):
                place, size = pack(artifact)
            packed = {"path": str(place), "size_bytes": size, "model_bytes": compressed_sizes(artifact.path)}
        if target is not None and artifact is not None:
            with progress.step("export the dense model"):
                dense = export(captured, Path(folder) / f"dense{artifact.path.suffix}", format=artifact.format)
            value = worth(dense, artifact, target=target, profile=profile, progress=progress)
    shares = zero_shares(plain)
    matrices = {name: value.numel() for name, value in plain.module.named_parameters() if value.ndim > 1}
    sizes = {name: plain.module.get_parameter(name).numel() for name in shares}
    zeros = sum(shares[name] * sizes[name] for name in shares)
    return {
        "schema": SCHEMA,
        "pattern": pattern,
        "ratio": ratio,
        "criterion": criterion,
        "scope": scope,
        "ignored": list(ignored),
        "epochs": epochs,
        "seed": seed,
        "candidate": plain.candidate.id,
        "zeros": dict(shares),
        "zero_share": zeros / sum(sizes.values()),
        "zero_share_of_all": zeros / sum((matrices | sizes).values()),  # of all parameters but vectors and scalars
        "left_dense": sorted(set(matrices) - set(shares)),
        "accuracy": accuracy,
        "output": str(output),
        "artifact": None if export_to is None or artifact is None else str(artifact.path),
        "compressed": packed,
        "worth": None if value is None else asdict(value),
    }


def _accuracies(
    captured: Captured, sparse: Pruned, task: CheckedTask | None, *, epochs: int, seed: int, progress: Progress
) -> dict[str, float] | None:
    """Of the dense model, after masking, and after fine-tuning."""
    from edgeprune.records.recovery import FineTuneSettings
    from edgeprune.recovery.finetune import finetune

    if task is None:
        return None
    with progress.step("evaluating"):
        found = {"dense": task.evaluate(captured.module), "sparse": task.evaluate(sparse.module)}
    if epochs:
        settings = FineTuneSettings(epochs=epochs)
        finetune(
            sparse.module,
            task.train_batches,
            task.loss,
            settings=settings,
            teacher=captured.module,
            seed=seed,
            progress=progress,
        )
        with progress.step("evaluating"):
            found["fine-tuned"] = task.evaluate(sparse.module)
    return found
