"""`edgeprune measure A --against B`: is one file faster than another on a device?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.pipeline.on_device import described, on_device
from edgeprune.progress import SILENT, Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.comparison import Comparison

if TYPE_CHECKING:
    from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
    from edgeprune.targets.base import Target

__all__ = ["compare"]


def compare(
    artifact: Artifact | Path | str,
    against: Artifact | Path | str,
    *,
    target: Target | str = "local",
    profile: DeviceProfile | str | Path = "host",
    policy: MeasurementPolicy | None = None,
    workers: int = 8,
    progress: Progress = SILENT,
    **options: Any,
) -> Comparison:
    """Run two artifacts in turn on one device, in `workers` fresh processes; a failure is an outcome in the record.

    Raises TargetError where the device cannot be reached, UsageError where target, profile or files are not usable.
    """
    if workers < 3:
        raise UsageError(f"{workers} worker processes give no interval", hint="3 is the least, 8 the default")
    one, other = described(artifact), described(against)
    with on_device(one.format, target, profile, policy=policy, progress=progress, options=options) as device:
        return device.told(device.session.compare(one, other, workers=workers))
