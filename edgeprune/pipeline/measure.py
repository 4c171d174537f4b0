"""`edgeprune measure`: one artifact on one device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.pipeline.on_device import described, on_device
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
    found = described(artifact)
    with on_device(
        found.format, target, profile, policy=policy, progress=progress, options=options, energy=energy
    ) as device:
        return device.told(device.session.measure(found, sustained_s=sustained_s, recording=recording))
