"""The device of a run, or its pool of devices: opened, looked at, and refused where figures would mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgeprune.measure.pool import Pool, Quiet
from edgeprune.measure.session import Session
from edgeprune.pipeline.device_check import refuse_unhealthy
from edgeprune.pipeline.run_checks import targets_of
from edgeprune.pipeline.runtimes import use_runtime_for
from edgeprune.progress import Progress
from edgeprune.records.profile_match import check_architecture, differences

if TYPE_CHECKING:
    from edgeprune.records.budget import Budget
    from edgeprune.records.profile import DeviceProfile
    from edgeprune.records.project import Project

__all__ = ["open_devices", "pool_facts"]

_WAIT_S = 600.0  # for another run on the same device to end


@contextmanager
def open_devices(
    project: Project, profile: DeviceProfile, budget: Budget, progress: Progress
) -> Iterator[Session | Pool]:
    """The project's device, or its pool, each of the profile's architecture and healthy.

    Raises TargetError where none is, UsageError where they are of another architecture or of several kinds.
    """
    energy = any(limit.figure == "energy" for limit in budget.limits)
    targets = targets_of(project)
    shown: Progress = progress if len(targets) == 1 else Quiet(progress)

    def check(session: Session) -> None:
        check_architecture(profile, session.machine, session.target.name)
        for text in differences(profile, session.machine):
            shown.say(f"warning: the device is not what the profile {profile.name!r} says: {text}")
        use_runtime_for(session, project.export.format)
        refuse_unhealthy(session, shown)

    sessions = [Session(target, profile, progress=shown, wait_s=_WAIT_S, energy=energy) for target in targets]
    if len(sessions) == 1:
        with sessions[0] as session:
            check(session)
            yield session
        return
    relative = frozenset(limit.figure for limit in budget.limits if limit.relative)
    with Pool(sessions, judge=project.device.judge, check=check, relative=relative, progress=progress) as pool:
        yield pool


def pool_facts(devices: Session | Pool, project: Project) -> dict[str, Any]:
    """Of a pool, for the result: its targets, and which were left out; the latter is filled while the run goes on."""
    if not isinstance(devices, Pool):
        return {}
    return {"targets": list(project.device.targets), "judge": project.device.judge, "left_out": devices.left_out}
