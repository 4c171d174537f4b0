"""Export as int8, without a device: float file, checked -> int8 file -> SQNR, and the task's metric of both."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.pipeline.export import check_output, export
from edgeprune.pipeline.quantisation import Quantisation, calibration_of, quantise, quantizer_of, scheme_of
from edgeprune.progress import SILENT, Progress
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["Int8", "export_int8"]


@dataclass(frozen=True, slots=True)
class Int8:
    """The int8 file beside its float form. Accuracies are the task's metric of both files' networks, None without."""

    artifact: Artifact
    scheme: str  # its key
    sqnr_db: float | None  # of the worst output, None where it is not finite
    float_size_bytes: int
    calibrated_on: str
    accuracy: float | None = None
    float_accuracy: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the artifact."""
        names = ("scheme", "sqnr_db", "float_size_bytes", "calibrated_on", "accuracy", "float_accuracy")
        return {name: getattr(self, name) for name in names}


def export_int8(
    model: Captured | Pruned,
    path: Path,
    *,
    format: str = "onnx",  # noqa: A002  as `export`
    scheme: str | None = None,
    calibration: Path | None = None,
    task: CheckedTask | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Int8:
    """Write the int8 form of a model and its manifest; `scheme` None is the format's first one.

    Ranges are taken from the file `calibration`, else from what the task trains on. Raises UsageError, ParityError
    (of the float file), TaskError, StorageError.
    """
    from edgeprune.training_data import reproducible

    def metric(module: nn.Module) -> float | None:
        if task is None:
            return None
        with progress.step("evaluating"), reproducible(seed):
            return task.evaluate(module.eval())

    path = path.absolute()
    check_output(path, format)
    quantizer = quantizer_of(format)
    chosen = quantizer.schemes[0] if scheme is None else scheme_of(quantizer, scheme)
    found = calibration_of(model, task, calibration, seed)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        with progress.step("exporting"):
            source = export(model, Path(folder) / path.name, format=format)
        with progress.step(f"quantising to {chosen.name}"):
            made = quantise(model, source, path, Quantisation(quantizer, chosen, found))
    return Int8(
        made.artifact,
        chosen.key,
        made.sqnr_db,
        source.size_bytes,
        found.origin,
        metric(made.module),
        metric(model.module),
    )
