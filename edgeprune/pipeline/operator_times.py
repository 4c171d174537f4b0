"""`edgeprune measure --operators`: where the time of one file goes on one device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.pipeline.on_device import described, on_device
from edgeprune.progress import SILENT, Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.runtime_profile import RuntimeProfile
from edgeprune.units import format_duration

if TYPE_CHECKING:
    from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
    from edgeprune.targets.base import Target

__all__ = ["operator_times"]

_OVERHEAD = 1.5  # times a plain run
_WITH_BODIES = frozenset({"If", "Loop", "Scan"})


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
    if runs < 1:
        raise UsageError(f"{runs} runs tell nothing", hint="1 is the least, 200 the default")
    found = described(artifact)
    with on_device(found.format, target, profile, policy=policy, progress=progress, options=options) as device:
        profiled = device.told(device.session.runtime_profile(found, runs=runs))
    return replace(profiled, warnings=(*profiled.warnings, *_misleading(profiled)))


def _misleading(profiled: RuntimeProfile) -> Iterator[str]:
    """What the figures do not tell on their own."""
    whole = sum(node.ns for node in profiled.nodes)
    if profiled.plain_ns is not None and whole > _OVERHEAD * profiled.plain_ns:
        yield (
            f"all operators together take {format_duration(whole * 1e-6)} under the profiler, a run without it "
            f"{format_duration(profiled.plain_ns * 1e-6)}: the shares of the short ones are too large"
        )
    holding = sorted({node.op_type for node in profiled.nodes} & _WITH_BODIES)
    if holding:
        yield f"{', '.join(holding)}: operators of a body are listed as well, though the time of the whole holds theirs"
