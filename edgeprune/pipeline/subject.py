"""What `check`, `diff` and `verify` look at: a finished run, or a file with its manifest."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeprune.errors import StorageError, UnreadableError, UsageError
from edgeprune.export import manifest
from edgeprune.measure.pool import judged
from edgeprune.pipeline.begun import resuming, unfinished
from edgeprune.pipeline.in_turn import FIGURE
from edgeprune.pipeline.locking import differing, read_lock
from edgeprune.pipeline.run import BEST, RESULT
from edgeprune.records import codec, lock
from edgeprune.records.artifact import Artifact
from edgeprune.records.figures import Figure, figures_of
from edgeprune.records.gate import NOT_MEASURED, Origin, Reading, device_of, lower_ends
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.result import Result
from edgeprune.records.trial import Trial

__all__ = ["Subject", "age_of", "check_lock", "load_result", "recorded", "subject_of"]


NO_ACCURACY = Figure(None, missing="a file alone has no accuracy: name the run that made it")


@dataclass(frozen=True, slots=True)
class Subject:
    """One model: its artifact, and the run that it is of, where it is of one. `measurements` are those of the artifact,
    one per device; `problem` says why there are none that count.
    """

    name: str  # as the user named it
    artifact: Artifact
    run_dir: Path | None = None
    result: Result | None = None
    measurements: tuple[Measurement, ...] = ()
    problem: str = ""

    @property
    def accuracy(self) -> float | None:
        """The metric of the network as the run evaluated it; a file alone has none."""
        best = None if self.result is None else self.result.best
        figure = None if best is None else best.figures.get("accuracy")
        return None if figure is None else figure.value

    @property
    def dense(self) -> Mapping[str, Figure]:
        """The dense model's figures as the run measured them; empty for a file."""
        return {} if self.result is None else self.result.dense.figures

    @property
    def judge(self) -> str:
        """Of a pool, whose figures count."""
        inputs = {} if self.result is None else self.result.provenance.get("inputs", {})
        return str(inputs.get("device", {}).get("judge", "worst"))

    @property
    def dense_artifact(self) -> Path | None:
        """The dense model's file."""
        if self.run_dir is None or self.result is None or self.result.dense.artifact is None:
            return None
        return self.run_dir / self.result.dense.artifact


def subject_of(path: Path) -> Subject:
    """A run's folder, its result.json, or an artifact; raises UsageError, StorageError."""
    if path.name == RESULT:
        path = path.parent
    if path.is_dir():
        return _of_run(path, load_result(path))
    artifact = manifest.read(path)
    measurements, problem = _measurements(path.parent, artifact)
    return Subject(str(path), artifact, measurements=measurements, problem=problem)


def load_result(run_dir: Path) -> Result:
    """The result of a run's folder; raises UsageError where it is none or was not finished, StorageError."""
    file = run_dir / RESULT
    again = f"write it again from the run's journal: {resuming(run_dir)}"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = "name a run's folder, a project with a run, or an exported file with its manifest"
        raise (unfinished(run_dir) or UsageError(f"there is no result in {run_dir}", hint=hint)) from error
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{file} cannot be read: {error}", hint=again) from error
    try:
        found = codec.from_json(data)
    except (AttributeError, StorageError) as error:
        raise UnreadableError(f"{file} is damaged: {error}", hint=again) from error
    if not isinstance(found, Result):
        raise UnreadableError(f"{file} is not the result of a run, but a {type(found).__name__.lower()}", hint=again)
    return found


def recorded(subject: Subject, now: datetime | None = None) -> Reading:
    """The figures that were recorded with the subject, with their age and provenance."""
    artifact, accuracy = subject.artifact, subject.accuracy
    parts = subject.measurements
    if not parts:
        origin = Origin("recorded", NOT_MEASURED, message=subject.problem, hint="measure it: --measure")
        missing = Measurement(artifact.sha256, Outcome.LOST, None, message=subject.problem)
        figures = {
            name: Figure(None, missing=subject.problem) if figure.value is None else figure
            for name, figure in figures_of(missing, artifact, accuracy).items()
        }
        if subject.result is None:
            figures["accuracy"] = NO_ACCURACY
        return Reading(subject.name, artifact.path.name, artifact.sha256, figures, {}, origin)
    found = reading_of(subject, parts, source="recorded", judge=subject.judge, now=now)
    best = None if subject.result is None else subject.result.best
    if best is None or found.origin.outcome != Outcome.OK.value:
        return found
    figures = {**best.figures, "size": found.figures["size"]}  # as the run judged them
    return replace(found, figures=figures, lower=_lower(found.lower, best, subject.dense))


def reading_of(
    subject: Subject,
    parts: tuple[Measurement, ...],
    *,
    source: Any,
    judge: str = "worst",
    now: datetime | None = None,
) -> Reading:
    """What one or several devices measured of the subject, as one reading."""
    artifact, accuracy = subject.artifact, subject.accuracy
    failed = [part for part in parts if part.outcome is not Outcome.OK]
    first = (failed or parts)[0]
    figures = (
        figures_of(first, artifact, accuracy)
        if failed or len(parts) == 1
        else judged({str(index): figures_of(part, artifact, accuracy) for index, part in enumerate(parts)}, judge)
    )
    provenances = [part.provenance for part in parts if part.provenance is not None]
    if subject.result is None:
        figures["accuracy"] = NO_ACCURACY
    started = min((provenance.started_at for provenance in provenances), default="")
    origin = Origin(
        source=source,
        outcome=first.outcome.value,
        message=first.message,
        started_at=started,
        age_s=age_of(started, now),
        targets=tuple(provenance.target for provenance in provenances),
        profile=provenances[0].profile if provenances else "",
        device=device_of(provenances[0] if provenances else None),
        warnings=tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
    )
    lower = lower_ends(first, artifact, accuracy) if len(parts) == 1 else {}
    return Reading(subject.name, artifact.path.name, artifact.sha256, figures, lower, origin)


def age_of(started_at: str, now: datetime | None = None) -> float | None:
    """Seconds since then; None where the text is no time."""
    try:
        then = datetime.fromisoformat(started_at)
    except ValueError:
        return None
    if then.tzinfo is None:
        return None
    return ((now or datetime.now(timezone.utc)) - then).total_seconds()


def _lower(lower: Mapping[str, float], best: Trial, dense: Mapping[str, Figure]) -> dict[str, float]:
    """The lower ends; of a median in turn with the dense model, that of the ratio times the dense model's."""
    told = list((best.details.get("in_turn") or {}).values())
    if not told:
        return dict(lower)
    found = {name: value for name, value in lower.items() if name != FIGURE}
    before, ratio = dense.get(FIGURE), told[0].get("lower")
    if len(told) == 1 and ratio is not None and before is not None and before.value is not None:
        found[FIGURE] = ratio * before.value
    return found


def _of_run(run_dir: Path, result: Result) -> Subject:
    if result.best is None or result.best.artifact is None:
        raise UsageError(
            f"the run in {run_dir} measured no network ({result.status}: {result.message})",
            hint="check a run that did, or an exported file",
        )
    path = run_dir / result.best.artifact
    if result.status == "accepted":
        path = run_dir / BEST / path.name
    artifact = manifest.read(path)
    measurements, problem = _measurements(path.parent, artifact)
    return Subject(str(run_dir), artifact, run_dir, result, measurements, problem)


def check_lock(subject: Subject) -> None:
    """Raise UsageError where the run's lock says something else than its result: one of the two was changed."""
    run_dir, result = subject.run_dir, subject.result
    if run_dir is None or result is None or not (run_dir / lock.FILE).is_file():
        return
    names = differing(result, read_lock(run_dir / lock.FILE))
    if names:
        raise UsageError(
            f"{run_dir / RESULT} says something else than {lock.FILE}: {', '.join(names)}",
            hint=f"restore the run's folder; `edgeprune verify {shlex.quote(str(run_dir))}` looks at all of it",
        )


def _measurements(folder: Path, artifact: Artifact) -> tuple[tuple[Measurement, ...], str]:
    """The recorded measurements of exactly this file, or why there are none."""
    paths = sorted(folder.glob("measurement-*.json")) or [folder / "measurement.json"]
    found = []
    for path in paths:
        try:
            record = codec.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return (), f"no measurement is recorded in {folder}"
        except (OSError, ValueError, AttributeError, StorageError) as error:
            return (), f"{path} cannot be read: {error}"
        if not isinstance(record, Measurement):
            return (), f"{path} is not a measurement"
        if record.artifact_sha256 != artifact.sha256:
            return (), f"{path} is of another file (sha256 {record.artifact_sha256[:16]}…)"
        found.append(record)
    return tuple(found), ""
