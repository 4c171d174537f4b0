"""One device opened for one request: found, held against its profile, and what is told of it in the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeprune.export.environment import ENVIRONMENTS
from edgeprune.pipeline.runtimes import RUNTIMES, local_options, missing_runtime_hint
from edgeprune.progress import Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Outcome

if TYPE_CHECKING:
    from edgeprune.measure.session import Session
    from edgeprune.records.comparison import Comparison
    from edgeprune.records.measurement import Measurement
    from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
    from edgeprune.records.runtime_profile import RuntimeProfile
    from edgeprune.targets.base import Target

    Record = TypeVar("Record", Comparison, Measurement, RuntimeProfile)

__all__ = ["OnDevice", "described", "on_device"]


@dataclass(frozen=True, slots=True)
class OnDevice:
    """The open session of one artifact's format."""

    session: Session
    format: str

    def told(self, record: Record) -> Record:
        """The record, with where the device differs from its profile, and how to come by a runtime that it lacks."""
        record = replace(record, warnings=(*self._unlike(), *record.warnings))
        if record.outcome is not Outcome.NO_RUNTIME or self.format not in ENVIRONMENTS:
            return record
        hint = missing_runtime_hint(self.session.target.name, RUNTIMES[self.format][0])
        return replace(record, message=f"{record.message} ({hint})")

    def _unlike(self) -> tuple[str, ...]:
        from edgeprune.records.profile_match import differences

        kind = self.session.profile
        return tuple(
            f"not as the profile {kind.name!r} says: {text}" for text in differences(kind, self.session.machine)
        )


def described(artifact: Artifact | Path | str) -> Artifact:
    """An artifact as it is, or a file's by its manifest or by itself."""
    from edgeprune.export import manifest

    return artifact if isinstance(artifact, Artifact) else manifest.read(Path(artifact))


@contextmanager
def on_device(
    format: str,  # noqa: A002  the record's word
    target: Target | str,
    profile: DeviceProfile | str | Path,
    *,
    policy: MeasurementPolicy | None,
    progress: Progress,
    options: Mapping[str, Any],
    energy: bool = False,
) -> Iterator[OnDevice]:
    """A session for files of a format; `options` are the target's where it is named by text.

    Raises TargetError where the device cannot be reached, UsageError where target or profile are not usable, or the
    device is of another architecture than the profile.
    """
    from edgeprune.measure.session import Session
    from edgeprune.records.profile import load_profile
    from edgeprune.records.profile_match import check_architecture
    from edgeprune.targets.parse import open_target

    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    if isinstance(target, str):
        target = open_target(target, **{**local_options(target, format), **options})
    with Session(target, kind, policy=policy, progress=progress, energy=energy) as session:
        check_architecture(kind, session.machine, target.name)
        yield OnDevice(session, format)
