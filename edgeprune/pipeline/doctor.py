"""`edgeprune doctor`: is all there that edgeprune needs and can use, here and on a device? With each fix.

packages -> extras -> environments -> runtimes here -> this machine -> space and caches -> the device, if one is named

Nothing heavy is imported: versions come from the packages' metadata.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.export.environment import ENVIRONMENTS, Environment, folder_of, inspect, locate
from edgeprune.export.environment_setup import is_current
from edgeprune.pipeline import doctor_host
from edgeprune.pipeline.device_check import Finding, check
from edgeprune.pipeline.runtimes import RUNTIMES, installed
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgeprune.records.profile import DeviceProfile

__all__ = ["SCHEMA", "Diagnosis", "Section", "examine"]

SCHEMA = "edgeprune.doctor/1"
_REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)(?:>=(?P<least>[\d.]+))?\s*(?:;\s*(?P<marker>.*))?$")
_EXTRA = re.compile(r"""extra\s*==\s*['"](?P<extra>[\w-]+)['"]""")
_BRINGS = {
    "examples": "the data of `edgeprune init --example digits`",
    "plot": "the picture of `edgeprune sweep --plot`",
    "tflite": "tflite-runtime in this interpreter, to measure .tflite files with",
    "ray": "executor: {kind: ray}: trials on the nodes of a cluster",
}


@dataclass(frozen=True, slots=True)
class Section:
    """What was looked at in one place."""

    name: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All of it. `healthy`: nothing has failed that is needed, or was asked for."""

    sections: tuple[Section, ...]

    @property
    def healthy(self) -> bool:
        """Nothing has failed."""
        return all(finding.state != "failed" for section in self.sections for finding in section.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "schema": SCHEMA,
            "healthy": self.healthy,
            "sections": {section.name: [one.to_json() for one in section.findings] for section in self.sections},
        }


def examine(
    target: str | None = None, *, profile: DeviceProfile | str | Path = "host", progress: Progress = SILENT
) -> Diagnosis:
    """Look at this machine, and with `target` at that device as well. Raises UsageError for unknown names."""
    from edgeprune.records.profile import load_profile

    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    sections = [
        Section("packages", tuple(_packages())),
        Section("extras", tuple(_extras())),
        Section("environments", tuple(map(_environment, ENVIRONMENTS.values()))),
        Section("runtimes", tuple(_runtimes())),
        Section("machine", doctor_host.machine(Path("/"))),
        Section("space", doctor_host.space()),
    ]
    if target is not None:
        sections.append(Section(target, (*check(target, profile=kind, progress=progress), _sensors(kind))))
    return Diagnosis(tuple(sections))


def _packages() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"Python {python}, {sys.executable}")
    yield Finding("edgeprune", "ok", f"{version('edgeprune')} in {Path(__file__).parents[1]}")
    for name, least in _requirements(None):
        yield _torch(least) if name == "torch" else _package(name, least)


def _package(name: str, least: str, brings: str = "", extra: str = "") -> Finding:
    """A distribution that is needed, or that an extra brings."""
    told = f": {brings}" if brings else ""
    wanted = f"edgeprune[{extra}]" if extra else f"{name}>={least}" if least else name
    install = f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(wanted)}"
    found = installed(name)
    if not found:
        return Finding(extra or name, "absent" if extra else "failed", f"{name} is not installed{told}", install)
    label = extra or name
    if least and _numbers(found) < _numbers(least):
        return Finding(label, "failed", f"{name} {found} is older than {least}", install)
    return Finding(label, "ok", f"{name} {found}{told}" if extra else found)


def _torch(least: str) -> Finding:
    """With what it was built for, read from its file: importing it takes seconds."""
    found = _package("torch", least)
    spec = importlib.util.find_spec("torch")
    if found.state != "ok" or spec is None or spec.origin is None:
        return found
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    built = re.search(r"""^cuda\b[^=]*=\s*['"]([\d.]+)['"]""", text, re.MULTILINE)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    usable = len(os.sched_getaffinity(0))
    used = f"{threads} of {usable} processors by OMP_NUM_THREADS" if threads else f"trains on {usable} processors"
    return Finding(
        "torch", "ok", f"{found.message}, {f'for CUDA {built[1]}' if built else 'for the processor'}, {used}"
    )


def _extras() -> Iterator[Finding]:
    for extra, brings in _BRINGS.items():
        for name, least in _requirements(extra):
            if name == "tflite-runtime" and sys.version_info >= (3, 12):
                yield Finding(extra, "absent", f"{name} has no wheels for this Python: {brings}")
            else:
                yield _package(name, least, brings, extra)


def _environment(kind: Environment) -> Finding:
    """A Python of its own that a converter needs; one that was named and does not serve is a failure."""
    found = locate(kind)
    if found is None:
        size = f"{kind.disk_bytes / 1e9:.1f} GB"
        return Finding(kind.name, "absent", f"{kind.brings}: needs an environment of its own ({size})", kind.command)
    try:
        there = inspect(kind, *found)
    except UsageError as error:
        return Finding(kind.name, "failed", error.message, error.hint or kind.command)
    versions = ", ".join(f"{name} {each}" for name, each in there.versions.items())
    if there.origin == "edgeprune doctor" and not is_current(kind):
        message = f"made for another version of edgeprune or Python: {versions}"
        return Finding(kind.name, "warning", message, kind.command)
    where = folder_of(kind) if there.origin == "edgeprune doctor" else f"{there.python}, named by {there.origin}"
    return Finding(kind.name, "ok", f"{versions} ({where})")


def _runtimes() -> Iterator[Finding]:
    """Of this interpreter, which measures on `local`; an environment's takes its place where it alone has one."""
    for name, distributions in RUNTIMES.items():
        for each in distributions:
            found = installed(each)
            if found:
                yield Finding(each, "ok", f"{found}, runs {name} files")
            elif each == distributions[0]:  # the others stand in for it, on old boards
                yield _elsewhere(each, name)


def _elsewhere(runtime: str, name: str) -> Finding:
    """A runtime that this interpreter does not have."""
    if runtime == "tensorrt":
        return Finding(runtime, "absent", "not here: engines are built and run on the board, where JetPack brings it")
    kind = ENVIRONMENTS.get(name)
    there = None if kind is None else locate(kind)
    if there is not None:
        return Finding(runtime, "ok", f"in {there[0]}, runs {name} files")
    fix = f"pip install {runtime}" if kind is None else kind.command
    return Finding(runtime, "absent", f"not here, to run {name} files", fix)


def _sensors(kind: DeviceProfile) -> Finding:
    """Which readings of power the profile knows of; whether they can be read is seen when energy is measured."""
    readable = [sensor for sensor in kind.power_sensors if not sensor.note.endswith("cannot be read by this user")]
    if readable:
        said = ", ".join(f"{sensor.name} ({sensor.scope})" for sensor in readable)
        return Finding("power", "ok", f"the profile {kind.name!r} has {said}")
    if kind.power_sensors:
        fix = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj   # until the next start"
        return Finding("power", "absent", "its power sensors can only be read by root", fix)
    fix = "name a meter in a profile of your own: power_sensors: [{name: meter, kind: csv, source: meter.csv, ...}]"
    return Finding("power", "absent", f"the profile {kind.name!r} knows no power sensor: no energy", fix)


def _requirements(extra: str | None) -> Sequence[tuple[str, str]]:
    """(name, least version) that edgeprune asks for, always or for an extra."""
    found = []
    for text in distribution("edgeprune").requires or ():
        match = _REQUIREMENT.match(text)
        if match is None:
            continue
        named = _EXTRA.search(match["marker"] or "")
        if (named["extra"] if named else None) == extra:
            found.append((match["name"], match["least"] or ""))
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])
