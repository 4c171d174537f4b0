"""A trial up to the measurement: surgery and verification, recovery, accuracy, export with parity check, int8.

It needs no device, and is the same wherever it is done: `Trials` does it itself or has an executor do it ahead.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.pipeline.export import export, exporter
from edgeprune.progress import SILENT, Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.candidate import Candidate
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Stage

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.pipeline.quantisation import Quantisation
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["CHECKPOINT", "Builder", "Built", "artifact_path", "shortened", "trial_seed", "write_json"]

CHECKPOINT = "finetune.safetensors"
GRAPH = "model.pt2"
_REFERENCE = Stage.MEASURE  # of the dense network; as a final trial it is one like all others
_SHORT = 6  # the share of the epochs that a short fine-tuning has, as a divisor


@dataclass(frozen=True, slots=True)
class Built:
    """What is known of a trial before it is measured; `artifact` is None where its stage measures nothing.

    `accuracy` is that of the artifact, else of the network in float.
    """

    accuracy: float
    artifact: Artifact | None
    details: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds trials of one network into folders. The dense model is taken as it is.

    With a quantisation all that is measured is int8, but the dense reference: relative limits are about the float
    network.
    """

    captured: Captured
    task: CheckedTask
    recovery: FineTuneSettings
    format: str = "onnx"
    seed: int = 0
    device: Mapping[str, Any] | None = None  # kept in the dense trial's details
    progress: Progress = SILENT
    quantisation: Quantisation | None = None

    def build(self, candidate: Candidate, stage: Stage, folder: Path) -> Built:
        """Do it in `folder`; raises VerificationError, ParityError, TaskError, StorageError."""
        started = time.monotonic()
        write_json(folder / "candidate.json", candidate.to_json())
        model: Captured | Pruned
        details: dict[str, Any]
        if candidate.is_dense:
            model = self.captured
            details = {
                "recovery": "none: the dense model",
                "device": dict(self.device or {}),
                "sources": self.task.sources,
            }
        else:
            pruned = self.captured.prune(candidate)
            model, details = pruned, self._recover(pruned, candidate, stage, folder)
            if pruned.verification is not None:
                details["verification_error"] = pruned.verification.relative_error
            if stage is Stage.FINAL:
                pruned.save(folder / GRAPH)
        cost = model.cost()
        details.update(params=cost.params, macs=cost.macs, peak_activation_bytes=cost.peak_activation_bytes)
        artifact: Artifact | None = None
        if self.quantisation is not None and self.quantises(candidate, stage):
            accuracy, artifact, more = self._int8(self.quantisation, model, candidate, stage, folder)
            details.update(more)
        else:
            accuracy = self.metric(model.module, candidate)
            if stage.is_measured:
                artifact = export(model, artifact_path(folder, self.format), format=self.format)
                details["parity_error"] = artifact.provenance.get("parity_error")
        return Built(accuracy, artifact, details, time.monotonic() - started)

    def quantises(self, candidate: Candidate, stage: Stage) -> bool:
        """Whether the artifact of such a trial is int8."""
        return self.quantisation is not None and stage.is_measured and not (candidate.is_dense and stage is _REFERENCE)

    def accuracy(self, model: Captured | Pruned, candidate: Candidate) -> float:
        """The task's metric, with the random numbers that the candidate always has; raises TaskError."""
        return self.metric(model.module, candidate)

    def metric(self, module: nn.Module, candidate: Candidate) -> float:
        """As `accuracy`, of any module that stands for the candidate's network."""
        from edgeprune.training_data import reproducible

        module.eval()
        with reproducible(trial_seed(self.seed, candidate)):
            accuracy = self.task.evaluate(module)
        module.eval()  # whatever the user's code left behind
        return accuracy

    def _int8(
        self, how: Quantisation, model: Captured | Pruned, candidate: Candidate, stage: Stage, folder: Path
    ) -> tuple[float, Artifact, dict[str, Any]]:
        """The metric of the int8 file, the file, details. A final trial is trained for int8 where that is needed."""
        from edgeprune.pipeline.quantised_trial import QuantisedTrial, Training

        path = artifact_path(folder, self.format)
        trial = QuantisedTrial(how, path, self.format, lambda module: self.metric(module, candidate))
        if stage is not Stage.FINAL:
            return trial.measured(model)
        training = None
        settings = shortened(self.recovery)
        if self.task.trainable and settings.epochs:
            seed = trial_seed(self.seed, candidate)
            training = Training(self.task, settings, self.captured.module, seed, self.progress)
        accuracy, artifact, details, final = trial.final(model, training)
        if final is not model:
            final.save(folder / GRAPH)  # type: ignore[union-attr]  # a copy, which can be saved
        return accuracy, artifact, details

    def _recover(self, pruned: Pruned, candidate: Candidate, stage: Stage, folder: Path) -> dict[str, Any]:
        """Get accuracy back as far as the stage goes; what was done."""
        from edgeprune.recovery.batchnorm import reestimate
        from edgeprune.recovery.finetune import finetune
        from edgeprune.training_data import reproducible

        if not self.task.trainable:
            return {"recovery": "none: the task has no train_batches() and loss()"}
        seed = trial_seed(self.seed, candidate)
        with reproducible(seed):
            batches = reestimate(pruned.module, self.task.train_batches(), self.task.loss, progress=self.progress)
        done = {
            "recovery": "batch-norm re-estimation" if batches else "none: no batch-norm statistics",
            "batches": batches,
        }
        settings = self.recovery if stage is Stage.FINAL else shortened(self.recovery)
        if stage not in (Stage.FINAL, Stage.TUNE) or settings.epochs == 0:
            return done
        before = self.accuracy(pruned, candidate)
        untrained = {name: value.detach().clone() for name, value in pruned.module.state_dict().items()}
        report = finetune(
            pruned.module,
            self.task.train_batches,
            self.task.loss,
            settings=settings,
            teacher=self.captured.module,
            seed=seed,
            checkpoint=folder / CHECKPOINT,
            progress=self.progress,
        )
        details = {
            "accuracy_before_fine_tuning": before,
            "epochs": report.epochs,
            "fine_tuning_steps": report.steps,
            "final_loss": report.final_loss,
        }
        if self.accuracy(pruned, candidate) >= before:
            return {**done, **details, "recovery": "fine-tuning"}
        pruned.module.load_state_dict(untrained)
        self.progress.say("warning: fine-tuning lowered the accuracy, so it was taken back; try a lower learning_rate")
        return {
            **done,
            **details,
            "recovery": f"{done['recovery']}; fine-tuning lowered the accuracy and was taken back",
        }


def shortened(settings: FineTuneSettings) -> FineTuneSettings:
    """Fine-tuning that is long enough to tell candidates apart: a sixth of the epochs, at least one where any."""
    return replace(settings, epochs=math.ceil(settings.epochs / _SHORT))


def trial_seed(seed: int, candidate: Candidate) -> int:
    """A seed for all that is random in a trial: the same for the same candidate, whenever it is tried."""
    digest = hashlib.sha256(f"{seed}/{candidate.id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def artifact_path(folder: Path, format: str) -> Path:  # noqa: A002  as `export`
    """Where the artifact of a trial lies."""
    return folder / f"model{exporter(format).suffix}"


def write_json(path: Path, data: Any) -> None:
    """Plain data, whole or not there; raises StorageError."""
    atomic.write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
