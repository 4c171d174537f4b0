"""The measuring of a gate: the model, and where a limit is relative to it the dense one, on the devices, as a run does.

A median that is limited relative to the dense model's is that of runs in turn with it (`pipeline.in_turn`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgeprune.errors import CannotMeasureError, StorageError
from edgeprune.export import manifest
from edgeprune.measure.pool import Pool, PoolMeasurement
from edgeprune.pipeline.devices import open_devices
from edgeprune.pipeline.in_turn import FIGURE, by_target, compared, figures_in_turn, is_relative
from edgeprune.pipeline.subject import Subject, reading_of
from edgeprune.progress import Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import Budget
from edgeprune.records.comparison import Comparison
from edgeprune.records.figures import Figure, figures_of
from edgeprune.records.gate import Origin, Reading
from edgeprune.records.gate_policy import LEVELS, Policy
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.profile import load_profile
from edgeprune.records.project import DeviceSettings, Project
from edgeprune.records.trial import Stage

__all__ = ["measured"]

Measured = Measurement | PoolMeasurement


def measured(
    subject: Subject, policy: Policy, device: DeviceSettings, progress: Progress
) -> tuple[Reading, dict[str, Figure]]:
    """The subject's figures as of now, and the dense model's, measured as well where a limit needs them.

    A device out of reach is the reading's outcome. Raises UsageError where target, profile or files are not usable,
    StorageError.
    """
    profile = load_profile(device.profile)
    limits = Budget(tuple(limit for level in LEVELS for limit in policy.budget[level].limits))
    project = Project(task="", path=Path(), device=device)
    dense = dict(subject.dense)
    reference = _dense_artifact(subject) if policy.is_of_dense else None
    try:
        with open_devices(project, profile, Budget(policy.limits), progress) as devices:
            if reference is None:
                reading = _reading(subject, devices.measure(subject.artifact), device.judge)
                return _of_all(reading, devices), dense
            before, now = devices.measure(reference), devices.measure(subject.artifact)
            reading = _reading(subject, now, device.judge)
            if is_relative(limits) and before.outcome is now.outcome is Outcome.OK:
                comparisons = compared(devices, subject.artifact, reference, Stage.FINAL)
                reading = _in_turn(subject, reading, comparisons, before, now)
            return _of_all(reading, devices), {**_figures(before, reference), **_accuracy(dense)}
    except StorageError:
        raise
    except CannotMeasureError as error:
        return _away(subject, device, profile.name, error), dense


def _dense_artifact(subject: Subject) -> Artifact:
    """The dense model's file; raises StorageError where it is gone."""
    path = subject.dense_artifact
    if path is None or not path.is_file():
        raise StorageError(
            f"the dense model's file {path} is gone, and a limit is relative to it",
            hint="restore the run's folder, or give absolute limits",
        )
    return manifest.read(path)


def _figures(measurement: Measured, artifact: Artifact) -> dict[str, Figure]:
    if isinstance(measurement, PoolMeasurement):
        return measurement.figures(artifact, None)
    return figures_of(measurement, artifact, None)


def _accuracy(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """As the run evaluated it."""
    return {name: figure for name, figure in figures.items() if name == "accuracy"}


def _reading(subject: Subject, now: Measured, judge: str) -> Reading:
    found = reading_of(subject, tuple(by_target(now).values()), source="measured", judge=judge)
    if not isinstance(now, PoolMeasurement):
        return found
    origin = replace(found.origin, outcome=now.outcome.value, message=now.message)
    return replace(found, figures=now.figures(subject.artifact, subject.accuracy), origin=origin)


def _of_all(reading: Reading, devices: object) -> Reading:
    """The reading; where a device of a pool was left out, it is not that of the devices that were asked for."""
    left_out = devices.left_out if isinstance(devices, Pool) else {}
    if not left_out:
        return reading
    message = "; ".join(f"{target} was left out: {why}" for target, why in left_out.items())
    hint = "bring it back, or leave it out of the targets"
    return replace(reading, origin=replace(reading.origin, outcome=Outcome.LOST.value, message=message, hint=hint))


def _in_turn(
    subject: Subject, reading: Reading, comparisons: Mapping[str, Comparison], before: Measured, now: Measured
) -> Reading:
    """The reading with the median of runs in turn with the dense model; they may fail, and then nothing is known."""
    failed = [entry for entry in comparisons.values() if not entry.outcome.is_result]
    if failed:
        message = f"in turn with the dense model: {failed[0].message}"
        record = Measurement(subject.artifact.sha256, failed[0].outcome, None, message=message)
        origin = replace(reading.origin, outcome=failed[0].outcome.value, message=message)
        return replace(reading, figures=figures_of(record, subject.artifact, subject.accuracy), lower={}, origin=origin)
    figures, _ = figures_in_turn(now, comparisons, by_target(before), subject.artifact, subject.accuracy)
    lower = {name: value for name, value in reading.lower.items() if name != FIGURE}
    return replace(reading, figures=figures, lower=lower)


def _away(subject: Subject, device: DeviceSettings, profile: str, error: CannotMeasureError) -> Reading:
    """What is known without the device: size and accuracy."""
    artifact = subject.artifact
    outcome = error.outcome or Outcome.LOST.value
    record = Measurement(artifact.sha256, Outcome.LOST, None, message=error.message)
    figures = {
        name: replace(figure, missing=f"{outcome}: {error.message}") if figure.value is None else figure
        for name, figure in figures_of(record, artifact, subject.accuracy).items()
    }
    targets = device.targets or (device.target,)
    origin = Origin("measured", outcome, error.message, error.hint or "", targets=targets, profile=profile)
    return Reading(subject.name, artifact.path.name, artifact.sha256, figures, {}, origin)
