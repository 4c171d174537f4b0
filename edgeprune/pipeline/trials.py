"""One trial of a run: surgery and verification, recovery, accuracy, export with parity check, measurement.

trials/0007/candidate.json · model.onnx · model.onnx.manifest.json · measurement.json · model.pt2 (final trials)
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeprune import atomic, registry
from edgeprune.errors import StorageError
from edgeprune.export import manifest
from edgeprune.measure.pool import PoolMeasurement
from edgeprune.measure.sentinel import Sentinel, drift
from edgeprune.pipeline.export import export
from edgeprune.progress import SILENT, Progress
from edgeprune.records import codec
from edgeprune.records.artifact import Artifact
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import figures_of
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Stage, Trial

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["Measures", "Trials", "trial_folder", "trial_seed"]

_CHECKPOINT = "finetune.safetensors"
_SHORT = 6  # the share of the epochs that a short fine-tuning has, as a divisor


class Measures(Protocol):
    """What a trial needs of a measuring session."""

    def measure(self, artifact: Artifact) -> Measurement | PoolMeasurement:
        """Measure one artifact, on one device or several; failures are outcomes in the record."""


@dataclass(frozen=True, slots=True)
class _Built:
    """A trial up to the measurement; kept so that a repeated measurement does not train again."""

    key: tuple[str, Stage, int]
    accuracy: float
    artifact: Artifact | None
    details: Mapping[str, Any]
    seconds: float


@dataclass(slots=True)
class Trials:
    """Does trials in a run's folder: the `evaluate` of `search`. The dense model is measured as it is."""

    captured: Captured
    task: CheckedTask
    session: Measures
    run_dir: Path
    recovery: FineTuneSettings
    format: str = "onnx"
    seed: int = 0
    device: Mapping[str, Any] = field(default_factory=dict)  # kept in the dense trial's details
    progress: Progress = SILENT
    sentinel: Sentinel | None = None  # None: the dense model is not measured again
    _built: _Built | None = field(default=None, init=False)

    def __call__(self, candidate: Candidate, stage: Stage, number: int) -> Trial:
        """The trial; raises VerificationError, ParityError, TaskError, TargetError, StorageError."""
        folder = trial_folder(self.run_dir, number)
        built = self._built
        if built is None or built.key != (candidate.id, stage, number):
            built = self._built = self._build(candidate, stage, number, folder)
        if built.artifact is None:
            (folder / _CHECKPOINT).unlink(missing_ok=True)
            figures = figures_of(None, None, built.accuracy)
            return Trial(number, stage, candidate, Outcome.OK.value, figures, "", built.seconds, None, built.details)
        started = time.monotonic()
        measured = self.session.measure(built.artifact)
        details = dict(built.details)
        if isinstance(measured, PoolMeasurement):
            figures = measured.figures(built.artifact, built.accuracy)
            measurement, outcome, message = measured.chosen, measured.outcome, measured.message
            for index, part in enumerate(measured.parts.values()):
                _write_json(folder / f"measurement-{index}.json", codec.to_json(part))
            details["pool"] = _of_pool(measured)
        else:
            figures = figures_of(measured, built.artifact, built.accuracy)
            measurement, outcome, message = measured, measured.outcome, measured.message
        _write_json(folder / "measurement.json", codec.to_json(measurement))
        if outcome.is_result:
            (folder / _CHECKPOINT).unlink(missing_ok=True)
            if self.sentinel is not None and candidate.is_dense:
                self.sentinel.dense_measured()
            elif self.sentinel is not None and self.sentinel.is_due():
                details["dense_again"] = self._dense_again()
                self.sentinel.dense_measured()
        return Trial(
            number,
            stage,
            candidate,
            outcome.value,
            figures,
            message=message,
            seconds=built.seconds + time.monotonic() - started,
            artifact=str(built.artifact.path.relative_to(self.run_dir)),
            details=details,
        )

    def dense_accuracy(self) -> float:
        """The metric of the dense model, as its trial has it; raises TaskError."""
        return self._accuracy(self.captured, Candidate())

    def _dense_again(self) -> dict[str, Any]:
        """The dense model measured once more, against its first measurement; by target."""
        folder = trial_folder(self.run_dir, 0)
        dense = manifest.read(folder / f"model{_suffix(self.format)}")
        first = {_target(part): part for part in _measurements(folder)}
        measured = self.session.measure(dense)
        found: dict[str, Any] = {}
        for now in measured.parts.values() if isinstance(measured, PoolMeasurement) else (measured,):
            target = _target(now)
            change = drift(first[target], now) if target in first else None
            if change is None:
                found[target] = {"outcome": now.outcome.value, "message": now.message}
                continue
            found[target] = {"outcome": now.outcome.value, **change.to_json()}
            if change.drifted:
                self.progress.say(f"warning: {target or 'the device'} drifts: {change}")
        return found

    def _build(self, candidate: Candidate, stage: Stage, number: int, folder: Path) -> _Built:
        started = time.monotonic()
        _write_json(folder / "candidate.json", candidate.to_json())
        model: Captured | Pruned
        details: dict[str, Any]
        if candidate.is_dense:
            model = self.captured
            details = {
                "recovery": "none: the dense model",
                "device": dict(self.device),
                "sources": self.task.sources,
            }
        else:
            pruned = self.captured.prune(candidate)
            model, details = pruned, self._recover(pruned, candidate, stage, folder)
            if pruned.verification is not None:
                details["verification_error"] = pruned.verification.relative_error
            if stage is Stage.FINAL:
                pruned.save(folder / "model.pt2")
        cost = model.cost()
        details.update(params=cost.params, macs=cost.macs, peak_activation_bytes=cost.peak_activation_bytes)
        accuracy = self._accuracy(model, candidate)
        artifact = None
        if stage.is_measured:
            artifact = export(model, folder / f"model{_suffix(self.format)}", format=self.format)
            details["parity_error"] = artifact.provenance.get("parity_error")
        return _Built((candidate.id, stage, number), accuracy, artifact, details, time.monotonic() - started)

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
        before = self._accuracy(pruned, candidate)
        untrained = {name: value.detach().clone() for name, value in pruned.module.state_dict().items()}
        report = finetune(
            pruned.module,
            self.task.train_batches,
            self.task.loss,
            settings=settings,
            teacher=self.captured.module,
            seed=seed,
            checkpoint=folder / _CHECKPOINT,
            progress=self.progress,
        )
        details = {
            "accuracy_before_fine_tuning": before,
            "epochs": report.epochs,
            "fine_tuning_steps": report.steps,
            "final_loss": report.final_loss,
        }
        if self._accuracy(pruned, candidate) >= before:
            return {**done, **details, "recovery": "fine-tuning"}
        pruned.module.load_state_dict(untrained)
        self.progress.say("warning: fine-tuning lowered the accuracy, so it was taken back; try a lower learning_rate")
        return {
            **done,
            **details,
            "recovery": f"{done['recovery']}; fine-tuning lowered the accuracy and was taken back",
        }

    def _accuracy(self, model: Captured | Pruned, candidate: Candidate) -> float:
        from edgeprune.training_data import reproducible

        model.module.eval()
        with reproducible(trial_seed(self.seed, candidate)):
            accuracy = self.task.evaluate(model.module)
        model.module.eval()  # whatever the user's code left behind
        return accuracy


def _of_pool(measured: PoolMeasurement) -> dict[str, Any]:
    """Whose figures were judged, and what each device had: the values by target."""
    return {
        "judge": measured.judge,
        "devices": {
            target: {name: figure.value for name, figure in figures_of(part, None, None).items()}
            for target, part in measured.parts.items()
        },
        "outcomes": {target: part.outcome.value for target, part in measured.parts.items()},
    }


def _measurements(folder: Path) -> list[Measurement]:
    """Of one trial: of the device, or of each of a pool; raises StorageError."""
    paths = sorted(folder.glob("measurement-*.json")) or [folder / "measurement.json"]
    try:
        found = [codec.from_json(json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read the measurement of the dense model in {folder}: {error}") from error
    return [record for record in found if isinstance(record, Measurement)]


def _target(measurement: Measurement) -> str:
    return "" if measurement.provenance is None else measurement.provenance.target


def shortened(settings: FineTuneSettings) -> FineTuneSettings:
    """Fine-tuning that is long enough to tell candidates apart: a sixth of the epochs, at least one where any."""
    return replace(settings, epochs=math.ceil(settings.epochs / _SHORT))


def trial_folder(run_dir: Path, number: int) -> Path:
    """Where a trial's files are."""
    return run_dir / "trials" / f"{number:04d}"


def trial_seed(seed: int, candidate: Candidate) -> int:
    """A seed for all that is random in a trial: the same for the same candidate, whenever it is tried."""
    digest = hashlib.sha256(f"{seed}/{candidate.id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _suffix(name: str) -> str:
    suffix: str = registry.resolve("exporters", name)().suffix
    return suffix


def _write_json(path: Path, data: Any) -> None:
    atomic.write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
