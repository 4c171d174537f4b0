"""`edgeprune device setup` and `device remove`: a runtime onto a device without internet, and off it again."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import CannotMeasureError, UsageError
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgeprune.agent.wheels import Wheel
    from edgeprune.records.profile import DeviceProfile
    from edgeprune.targets.base import Target

__all__ = ["SetUp", "remove", "setup"]

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9-]+)(==(?P<version>[0-9][0-9A-Za-z.]*))?")


@dataclass(frozen=True, slots=True)
class SetUp:
    """What runs on the device now."""

    target: str
    board: str
    runtime: str
    version: str
    folder: str
    installed_now: bool  # False: it was there already
    wheels: tuple[str, ...]
    golden_error: float  # of a test network's outputs, as a share of the largest one

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def setup(
    target: Target | str,
    *,
    runtime: str | None = None,
    wheelhouse: Path | None = None,
    profile: DeviceProfile | str | Path = "host",
    progress: Progress = SILENT,
    **options: Any,
) -> SetUp:
    """Install a runtime that fits the device, from the package index or from `wheelhouse`, and prove that it computes.

    `runtime` is like "onnxruntime" or "onnxruntime==1.20.1". What is there already stays; an interrupted setup goes on
    where it was. Raises UsageError, TargetError (NO_RUNTIME where none exists for the board, NO_SPACE, BUSY, LOST).
    """
    from edgeprune.agent.bootstrap import Bootstrap
    from edgeprune.agent.wheels import RUNTIMES, Board, choose_runtime, collect
    from edgeprune.measure.session import Session
    from edgeprune.pipeline.golden import run_golden
    from edgeprune.records.profile import load_profile
    from edgeprune.targets.parse import open_target

    wanted = _REQUIREMENT.fullmatch(runtime) if runtime is not None else None
    if runtime is not None and wanted is None:
        raise UsageError(f"{runtime!r} is not a runtime", hint="write it like onnxruntime or onnxruntime==1.20.1")
    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    device = open_target(target, **options) if isinstance(target, str) else target
    # The session holds the device's lock: nobody measures while files are sent and unpacked.
    with (
        Session(device, kind, progress=progress) as session,
        tempfile.TemporaryDirectory(prefix="edgeprune-") as folder,
    ):
        bootstrap = Bootstrap(session.target)
        facts = bootstrap.facts()
        board = Board.from_facts(facts)
        name = choose_runtime(board, wanted["name"] if wanted else None)
        progress.say(f"{device.name}: {board}: {name}")
        version = f"=={wanted['version']}" if wanted and wanted["version"] else ""
        with progress.step(f"collecting wheels of {name}"):
            wheels = collect(board, RUNTIMES[name].distribution + version, Path(folder), wheelhouse)
        already = _same(facts["installed"], wheels)
        if not already:
            bootstrap.install(name, _version(name, wheels), wheels, progress)
        try:
            with progress.step("running a test network there"):
                answer, error = run_golden(bootstrap, device.name)
        except CannotMeasureError:
            bootstrap.remove()  # the next measurement would use it
            raise
        return SetUp(
            target=device.name,
            board=str(board),
            runtime=name,
            version=str(answer["version"]),
            folder=str(facts["home"]),
            installed_now=not already,
            wheels=tuple(wheel.path.name for wheel in wheels),
            golden_error=error,
        )


def remove(
    target: Target | str,
    *,
    profile: DeviceProfile | str | Path = "host",
    progress: Progress = SILENT,
    **options: Any,
) -> Mapping[str, Any]:
    """Take away all that edgeprune has put on the device; `removed` says whether there was anything."""
    from edgeprune.agent.bootstrap import Bootstrap
    from edgeprune.measure.session import Session
    from edgeprune.records.profile import load_profile
    from edgeprune.targets.parse import open_target

    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    device = open_target(target, **options) if isinstance(target, str) else target
    with Session(device, kind, progress=progress) as session, progress.step(f"removing from {device.name}"):
        answer = Bootstrap(session.target).remove()
        return {"target": device.name, "removed": bool(answer["removed"]), "folder": str(answer["folder"])}


def _same(installed: Any, wheels: tuple[Wheel, ...]) -> bool:
    there = {wheel["sha256"] for wheel in installed["wheels"]} if installed else set()
    return there == {wheel.sha256 for wheel in wheels}


def _version(runtime: str, wheels: tuple[Wheel, ...]) -> str:
    """From the file name of the runtime's wheel (PEP 427)."""
    names = [wheel.path.name.split("-") for wheel in wheels]
    return next(parts[1] for parts in names if parts[0].replace("_", "-").lower() == runtime)
