"""`edgeprune measure A --against B`: is one file faster than another on a device?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
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
    from edgeprune.export import manifest
    from edgeprune.measure.session import Session
    from edgeprune.pipeline.runtimes import local_options, with_hint
    from edgeprune.records.profile import load_profile
    from edgeprune.records.profile_match import check_architecture, differences
    from edgeprune.targets.parse import open_target

    if workers < 3:
        raise UsageError(f"{workers} worker processes give no interval", hint="3 is the least, 8 the default")
    one, other = (item if isinstance(item, Artifact) else manifest.read(Path(item)) for item in (artifact, against))
    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    if isinstance(target, str):
        target = open_target(target, **{**local_options(target, one.format), **options})
    with Session(target, kind, policy=policy, progress=progress) as session:
        check_architecture(kind, session.machine, target.name)
        compared = with_hint(session.compare(one, other, workers=workers), one, target)
        unlike = (f"not as the profile {kind.name!r} says: {text}" for text in differences(kind, session.machine))
        return replace(compared, warnings=(*unlike, *compared.warnings))
