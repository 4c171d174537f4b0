"""One trial of a run: surgery and verification, recovery, accuracy, export with parity check, measurement.

trials/0007/candidate.json · model.onnx · model.onnx.manifest.json · measurement.json · model.pt2 (final trials)
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from edgeprune.errors import StorageError
from edgeprune.export import manifest
from edgeprune.measure.pool import PoolMeasurement
from edgeprune.measure.sentinel import Sentinel, drift
from edgeprune.pipeline.building import CHECKPOINT, Builder, Built, artifact_path, write_json
from edgeprune.pipeline.executors.base import Executor
from edgeprune.pipeline.in_turn import Compares, by_target, compared, figures_in_turn
from edgeprune.progress import SILENT, Progress
from edgeprune.records import codec
from edgeprune.records.artifact import Artifact
from edgeprune.records.candidate import Candidate
from edgeprune.records.comparison import Comparison
from edgeprune.records.figures import Figure, figures_of
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.trial import Job, Stage, Trial

__all__ = ["Measures", "Trials", "trial_folder"]


class Measures(Compares, Protocol):
    """What a trial needs of a measuring session."""

    def measure(self, artifact: Artifact) -> Measurement | PoolMeasurement:
        """Measure one artifact, on one device or several; failures are outcomes in the record."""


@dataclass(slots=True)
class Trials:
    """Does trials in a run's folder: the `evaluate` of `search`. The dense model is measured as it is.

    What was handed to `ahead` is built by the executor, all else here; measured is one after the other.
    """

    builder: Builder
    session: Measures
    run_dir: Path
    progress: Progress = SILENT
    sentinel: Sentinel | None = None  # None: the dense model is not measured again
    executor: Executor | None = None
    in_turn: bool = False  # the median latency is that of runs in turn with the dense model
    _built: tuple[Job, Built] | None = field(default=None, init=False)  # a repeated measurement does not train again
    _ahead: set[Job] = field(default_factory=set, init=False)

    def ahead(self, jobs: Sequence[Job]) -> None:
        """What will be asked for next, in this order: the executor may begin with all of it."""
        if self.executor is not None:
            new = [job for job in jobs if not job.candidate.is_dense]
            self._ahead.update(new)
            self.executor.submit([(job, trial_folder(self.run_dir, job.number)) for job in new])

    def __call__(self, candidate: Candidate, stage: Stage, number: int) -> Trial:
        """The trial; raises VerificationError, ParityError, TaskError, TargetError, StorageError."""
        folder = trial_folder(self.run_dir, number)
        built = self._done(Job(number, stage, candidate), folder)
        if built.artifact is None:
            figures = figures_of(None, None, built.accuracy)
            return Trial(number, stage, candidate, Outcome.OK.value, figures, "", built.seconds, None, built.details)
        started = time.monotonic()
        measured = self.session.measure(built.artifact)
        details = dict(built.details)
        if isinstance(measured, PoolMeasurement):
            figures = measured.figures(built.artifact, built.accuracy)
            measurement, outcome, message = measured.chosen, measured.outcome, measured.message
            for index, part in enumerate(measured.parts.values()):
                write_json(folder / f"measurement-{index}.json", codec.to_json(part))
            details["pool"] = _of_pool(measured)
        else:
            figures = figures_of(measured, built.artifact, built.accuracy)
            measurement, outcome, message = measured, measured.outcome, measured.message
        write_json(folder / "measurement.json", codec.to_json(measurement))
        is_reference = candidate.is_dense and not self.builder.quantises(candidate, stage)
        if self.in_turn and outcome is Outcome.OK and not is_reference:
            found = self._in_turn(measured, built.artifact, built.accuracy, stage, folder)
            if isinstance(found, Comparison):
                outcome, message = found.outcome, f"in turn with the dense model: {found.message}"
                figures = figures_of(replace(measurement, outcome=outcome, message=message), built.artifact, None)
            else:
                figures, details["in_turn"] = found
        if outcome.is_result and self.sentinel is not None:
            if is_reference:
                self.sentinel.dense_measured()
            elif self.sentinel.is_due():
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

    def settled(self, number: int) -> None:
        """The trial will not be asked for again: nothing has to go on with its fine-tuning."""
        (trial_folder(self.run_dir, number) / CHECKPOINT).unlink(missing_ok=True)

    def dense_accuracy(self) -> float:
        """The metric of the dense model, as its trial has it; raises TaskError."""
        return self.builder.accuracy(self.builder.captured, Candidate())

    def _done(self, job: Job, folder: Path) -> Built:
        if self._built is None or self._built[0] != job:
            if self.executor is not None and job in self._ahead:
                self._ahead.remove(job)
                built = self.executor.built(job)
            else:
                built = self.builder.build(job.candidate, job.stage, folder)
            self._built = job, built
        return self._built[1]

    def _dense(self) -> Artifact:
        return manifest.read(artifact_path(trial_folder(self.run_dir, 0), self.builder.format))

    def _in_turn(
        self,
        measured: Measurement | PoolMeasurement,
        artifact: Artifact,
        accuracy: float,
        stage: Stage,
        folder: Path,
    ) -> tuple[dict[str, Figure], dict[str, Any]] | Comparison:
        """Figures and details of a trial that was measured; the comparison that failed where one did."""
        found = compared(self.session, artifact, self._dense(), stage)
        for index, comparison in enumerate(found.values()):
            write_json(folder / ("in_turn.json" if len(found) == 1 else f"in_turn-{index}.json"), comparison.to_json())
        failed = [comparison for comparison in found.values() if not comparison.outcome.is_result]
        if failed:
            return failed[0]
        return figures_in_turn(measured, found, _by_target(trial_folder(self.run_dir, 0)), artifact, accuracy)

    def _dense_again(self) -> dict[str, Any]:
        """The dense model measured once more, against its first measurement; by target."""
        folder = trial_folder(self.run_dir, 0)
        dense = self._dense()
        first = _by_target(folder)
        measured = self.session.measure(dense)
        found: dict[str, Any] = {}
        for target, now in by_target(measured).items():
            change = drift(first[target], now) if target in first else None
            if change is None:
                found[target] = {"outcome": now.outcome.value, "message": now.message}
                continue
            found[target] = {"outcome": now.outcome.value, **change.to_json()}
            if change.drifted:
                self.progress.say(f"warning: {target or 'the device'} drifts: {change}")
        return found


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


def _by_target(folder: Path) -> dict[str, Measurement]:
    """The measurements of one trial: of the device, or of each of a pool; raises StorageError."""
    paths = sorted(folder.glob("measurement-*.json")) or [folder / "measurement.json"]
    try:
        found = [codec.from_json(json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read the measurement of the dense model in {folder}: {error}") from error
    known: dict[str, Measurement] = {}
    for record in found:
        if isinstance(record, Measurement):
            known |= by_target(record)
    return known


def trial_folder(run_dir: Path, number: int) -> Path:
    """Where a trial's files are."""
    return run_dir / "trials" / f"{number:04d}"
