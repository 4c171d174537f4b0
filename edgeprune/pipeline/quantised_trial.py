"""A trial's artifact in int8: the file, its metric, and training for int8 where the file alone loses too much.

float.onnx (checked) -> model.onnx, int8 -> metric, SQNR -> a final trial that lost too much: quantisation-aware
fine-tuning, both files again, and the better of the two is kept
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.export.manifest import manifest_path
from edgeprune.pipeline.export import export
from edgeprune.pipeline.quantisation import Quantisation, quantise
from edgeprune.progress import Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.candidate import Candidate
from edgeprune.records.recovery import FineTuneSettings

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["QuantisedTrial", "Training", "loses_too_much"]

_FLOAT = "float"
_LOST = 0.01  # of the metric, that quantisation alone may cost


@dataclass(frozen=True, slots=True)
class Training:
    """What quantisation-aware fine-tuning of a trial needs."""

    task: CheckedTask
    settings: FineTuneSettings
    teacher: nn.Module
    seed: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class QuantisedTrial:
    """Makes the int8 artifact of one trial at `path`; `metric` is the task's, of any module."""

    how: Quantisation
    path: Path
    format: str
    metric: Callable[[nn.Module], float]

    def measured(self, model: Captured | Pruned) -> tuple[float, Artifact, dict[str, Any]]:
        """The int8 file's metric, the file, and details. Only the int8 file stays."""
        accuracy, artifact, details = self._made(model)
        source = self.path.with_stem(_FLOAT)
        source.unlink()
        manifest_path(source).unlink()
        return accuracy, artifact, details

    def final(
        self, model: Captured | Pruned, training: Training | None
    ) -> tuple[float, Artifact, dict[str, Any], Captured | Pruned]:
        """The same with the float metric, and the network that came of it; the float file stays beside the int8 one."""
        accuracy, artifact, details = self._made(model)
        reference = self.metric(model.module)
        details["quantised"]["float_accuracy"] = reference
        if training is None or not loses_too_much(self.how, reference, accuracy):
            return accuracy, artifact, details, model
        return self._trained(model, training, (accuracy, artifact, details))

    def _trained(
        self, model: Captured | Pruned, training: Training, before: tuple[float, Artifact, dict[str, Any]]
    ) -> tuple[float, Artifact, dict[str, Any], Captured | Pruned]:
        from edgeprune.graph.captured import Pruned
        from edgeprune.recovery.fake_quantised import quantisation_aware

        copy = model.prune(Candidate(), verify=False)
        if isinstance(model, Pruned):
            copy.candidate, copy.verification = model.candidate, model.verification
        copy.input_names, copy.output_names = model.input_names, model.output_names
        files = [self.path, self.path.with_stem(_FLOAT)]
        kept = {file: file.read_bytes() for name in files for file in (name, manifest_path(name))}
        report = quantisation_aware(
            copy,
            training.task.train_batches,
            training.task.loss,
            per_channel=self.how.scheme.per_channel,
            settings=training.settings,
            teacher=training.teacher,
            seed=training.seed,
            progress=training.progress,
        )
        accuracy, artifact, details = self._made(copy)
        told = {
            "epochs": report.epochs,
            "steps": report.steps,
            "accuracy_before": before[0],
            "accuracy_after": accuracy,
            "kept": accuracy > before[0],
        }
        if accuracy <= before[0]:
            for file, content in kept.items():
                atomic.write_bytes(file, content)
            accuracy, artifact, details = before
        details["quantised"] |= {
            "float_accuracy": before[2]["quantised"]["float_accuracy"],
            "quantisation_aware": told,
        }
        return accuracy, artifact, details, copy if told["kept"] else model

    def _made(self, model: Captured | Pruned) -> tuple[float, Artifact, dict[str, Any]]:
        source = export(model, self.path.with_stem(_FLOAT), format=self.format)
        found = quantise(model, source, self.path, self.how)
        quantised = {
            "scheme": self.how.scheme.key,
            "calibrated_on": self.how.calibration.origin,
            "sqnr_db": found.sqnr_db,
            "float_size_bytes": source.size_bytes,
        }
        details = {"parity_error": source.provenance.get("parity_error"), "quantised": quantised}
        return self.metric(found.module), found.artifact, details


def loses_too_much(how: Quantisation, reference: float, accuracy: float) -> bool:
    """Whether training for int8 is worth its time: it lost more than 1 pp, or anything where the limit is missed."""
    missed = how.least_accuracy is not None and accuracy < how.least_accuracy
    return reference - accuracy > _LOST or (missed and accuracy < reference)
