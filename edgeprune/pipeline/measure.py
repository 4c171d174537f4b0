"""`edgeprune measure`: one artifact on one device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.progress import SILENT, Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Measurement

if TYPE_CHECKING:
    from edgeprune.measure.recording import Recording
    from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
    from edgeprune.targets.base import Target

__all__ = ["measure"]


def measure(
    artifact: Artifact | Path | str,
    *,
    target: Target | str = "local",
    profile: DeviceProfile | str | Path = "host",
    policy: MeasurementPolicy | None = None,
    progress: Progress = SILENT,
    energy: bool = False,
    sustained_s: float | None = None,
    recording: Recording | None = None,
    **options: Any,
) -> Measurement:
    """Measure an artifact, or a file described by its manifest or by itself; `options` are the target's.

    `energy` asks for energy as well; the profile's policy may ask for it anyhow, or forbid it. With `sustained_s` the
    runs go on for that long; all that the device says goes into `recording`.
    A failed measurement is an outcome in the record; so is, as a warning, where the device differs from the profile.
    Raises TargetError where the device cannot be reached, UsageError where target, profile or file are not usable, or
    the device is of another architecture than the profile.
    """
    from edgeprune.export import manifest
    from edgeprune.measure.session import Session
    from edgeprune.pipeline.runtimes import local_options, with_hint
    from edgeprune.records.profile import load_profile
    from edgeprune.records.profile_match import check_architecture, differences
    from edgeprune.targets.parse import open_target

    found = artifact if isinstance(artifact, Artifact) else manifest.read(Path(artifact))
    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    if isinstance(target, str):
        target = open_target(target, **{**local_options(target, found.format), **options})
    with Session(target, kind, policy=policy, progress=progress, energy=energy) as session:
        check_architecture(kind, session.machine, target.name)
        measured = session.measure(found, sustained_s=sustained_s, recording=recording)
        measured = with_hint(measured, found, target)
        return replace(
            measured,
            warnings=(
                *(f"not as the profile {kind.name!r} says: {text}" for text in differences(kind, session.machine)),
                *measured.warnings,
            ),
        )
