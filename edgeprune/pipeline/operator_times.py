"""`edgeprune measure --operators`: where the time of one file goes on one device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.progress import SILENT, Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.runtime_profile import RuntimeProfile

if TYPE_CHECKING:
    from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
    from edgeprune.targets.base import Target

__all__ = ["operator_times"]


def operator_times(
    artifact: Artifact | Path | str,
    *,
    target: Target | str = "local",
    profile: DeviceProfile | str | Path = "host",
    policy: MeasurementPolicy | None = None,
    runs: int = 200,
    progress: Progress = SILENT,
    **options: Any,
) -> RuntimeProfile:
    """How long each operator takes that the runtime made of the file, by its own profiler; a failure is an outcome.

    Raises TargetError where the device cannot be reached, UsageError where target, profile, file or `runs` are not
    usable.
    """
    from edgeprune.export import manifest
    from edgeprune.measure.session import Session
    from edgeprune.pipeline.runtimes import local_options
    from edgeprune.records.profile import load_profile
    from edgeprune.records.profile_match import check_architecture, differences
    from edgeprune.targets.parse import open_target

    if runs < 1:
        raise UsageError(f"{runs} runs tell nothing", hint="1 is the least, 200 the default")
    found = artifact if isinstance(artifact, Artifact) else manifest.read(Path(artifact))
    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    if isinstance(target, str):
        target = open_target(target, **{**local_options(target, found.format), **options})
    with Session(target, kind, policy=policy, progress=progress) as session:
        check_architecture(kind, session.machine, target.name)
        profiled = session.runtime_profile(found, runs=runs)
        unlike = (f"not as the profile {kind.name!r} says: {text}" for text in differences(kind, session.machine))
        return replace(profiled, warnings=(*unlike, *profiled.warnings))
