"""What a run would take: seconds of the device and of training, from what was timed here."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from edgeprune.measure.pool import PoolMeasurement
from edgeprune.pipeline.building import shortened
from edgeprune.pipeline.prepared import Prepared
from edgeprune.pipeline.trials import Measures
from edgeprune.progress import Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.candidate import Candidate
from edgeprune.records.comparison import Comparison
from edgeprune.records.measurement import Measurement
from edgeprune.records.project import Project
from edgeprune.records.trial import Trial

if TYPE_CHECKING:
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["Clock", "Effort", "effort_of"]

_TIMED_BATCHES = 4  # of training; the first is not counted


@dataclass(frozen=True, slots=True)
class Effort:
    """What was timed here: seconds. `fine_tuning_s` is batches × epochs × `batch_s`, and a short one `short_s`; None
    without a training part."""

    measurement_s: float
    build_s: float
    measurements: int  # at most, by max_trials
    batch_s: float | None = None
    batches: int | None = None  # of an epoch
    epochs: int = 0
    short_epochs: int = 0  # of a short fine-tuning

    @property
    def device_s(self) -> float:
        """Of the device at most."""
        return self.measurement_s * self.measurements

    @property
    def fine_tuning_s(self) -> float | None:
        """One whole fine-tuning."""
        return self._training_s(self.epochs)

    @property
    def short_s(self) -> float | None:
        """One short fine-tuning, of those that a network is chosen by."""
        return self._training_s(self.short_epochs)

    def _training_s(self, epochs: int) -> float | None:
        return None if self.batch_s is None or self.batches is None else self.batch_s * self.batches * epochs


@dataclass(slots=True)
class Clock:
    """Measures as the devices do, and counts the seconds."""

    devices: Measures
    seconds: float = 0.0

    def measure(self, artifact: Artifact) -> Measurement | PoolMeasurement:
        """See `Measures.measure`."""
        started = time.monotonic()
        measured = self.devices.measure(artifact)
        self.seconds += time.monotonic() - started
        return measured

    def compare(
        self, artifact: Artifact, against: Artifact, *, workers: int, seconds: float
    ) -> Comparison | dict[str, Comparison]:
        """See `Compares.compare`."""
        started = time.monotonic()
        found = self.devices.compare(artifact, against, workers=workers, seconds=seconds)
        self.seconds += time.monotonic() - started
        return found


def effort_of(
    project: Project, prepared: Prepared, task: CheckedTask, *, clock: Clock, done: list[Trial], progress: Progress
) -> Effort:
    """Times of what was done, and of a few batches of training on a copy that is thrown away."""
    effort = Effort(
        measurement_s=clock.seconds / len(done),
        build_s=(sum(trial.seconds for trial in done) - clock.seconds) / len(done),
        measurements=project.search.max_trials,
        epochs=project.recovery.epochs,
        short_epochs=shortened(project.recovery).epochs,
    )
    if not task.trainable or project.recovery.epochs == 0:
        return replace(effort, epochs=0, short_epochs=0)
    from edgeprune.recovery.finetune import finetune

    most = project.recovery.max_batches_per_epoch
    with progress.step("counting the batches of an epoch"):
        batches = sum(1 for _ in islice(task.train_batches(), most))
    seconds = []
    for count in (1, min(_TIMED_BATCHES, batches)):
        copy = prepared.captured.prune(Candidate(), verify=False).module
        settings = replace(project.recovery, epochs=1, max_batches_per_epoch=count)
        started = time.monotonic()
        finetune(
            copy,
            task.train_batches,
            task.loss,
            settings=settings,
            teacher=prepared.captured.module,
            seed=0,
            progress=progress,
        )
        seconds.append((time.monotonic() - started, count))
    (first, one), (last, count) = seconds
    each = (last - first) / (count - one) if count > one and last > first else last / count
    return replace(effort, batch_s=each, batches=batches)
