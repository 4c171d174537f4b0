"""Reading device profiles: the shipped ones, and those that a user writes; inheritance by `extends`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from edgeprune import registry
from edgeprune.errors import ConfigError, did_you_mean
from edgeprune.records import host
from edgeprune.records.budget_field import BudgetLimits
from edgeprune.records.fields import Boolean, Choice, Count, Field, ListOf, MapOf, Number, Quantity, Share, Table, Text
from edgeprune.records.profile import (
    DEVICE_SENSORS,
    SCHEMA,
    CoreCluster,
    DeviceProfile,
    MeasurementPolicy,
    PowerSensor,
    ThrottleSource,
)
from edgeprune.records.yaml_reader import Entry, merge, read_document

__all__ = ["PROFILE", "load_profile", "profile_folder", "profile_names"]


@dataclass(frozen=True, slots=True)
class _Cores:
    """Numbers of cores, or "big"."""

    def read(self, entry: Entry) -> tuple[int, ...] | str:
        if entry.content == "big":
            return "big"
        if not isinstance(entry.content, tuple) or not entry.content:
            raise entry.error(f"expected cores, not {entry.description}", hint="write it like [2, 3], or big")
        numbers = ListOf(Count(0)).read(entry)
        if len(set(numbers)) != len(numbers):
            raise entry.error("a core is named twice", hint="name each core once")
        return numbers

    def schema(self) -> dict[str, Any]:
        numbers = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
        return {"anyOf": [{"const": "big"}, numbers]}


@dataclass(frozen=True, slots=True)
class _SensorKind:
    """How the device reads a sensor, or the name of a meter that the host reads."""

    def read(self, entry: Entry) -> str:
        return str(self._choice().read(entry))

    def schema(self) -> dict[str, Any]:
        return self._choice().schema()

    def _choice(self) -> Choice:
        return Choice((*DEVICE_SENSORS, *registry.names("power_sensors")))


@dataclass(frozen=True, slots=True)
class _YesNoAuto:
    """True, False or "auto"."""

    def read(self, entry: Entry) -> bool | str:
        return "auto" if entry.content == "auto" else Boolean().read(entry)

    def schema(self) -> dict[str, Any]:
        return {"enum": [True, False, "auto"]}


_CORES = Table(
    CoreCluster,
    {
        "count": Field(Count(), required=True),
        "name": Field(Text("Cortex-A76"), required=True),
        "max_clock": Field(Quantity("frequency"), "max_mhz", description='"2.4GHz"'),
    },
)
_POWER_SENSOR = Table(
    PowerSensor,
    {
        "name": Field(Text("ina3221"), required=True),
        "kind": Field(_SensorKind(), required=True),
        "scope": Field(Choice(("board", "module", "soc", "rails")), required=True),
        "rails": Field(ListOf(Text("VDD_IN"))),
        "note": Field(Text()),
        "total": Field(Text("VDD_IN"), description="the rail that feeds the others: it alone is counted"),
        "source": Field(Text(), description="which of several chips: a part of its path; or what a meter is to read"),
    },
)
_THROTTLE_SOURCE = Table(
    ThrottleSource,
    {
        "name": Field(Text("get_throttled"), required=True),
        "source": Field(Text("/sys/class/thermal/thermal_zone*/temp"), required=True),
        "note": Field(Text()),
    },
)
_MEASUREMENT = Table(
    dict,
    {
        "runtime": Field(Text("onnxruntime")),
        "threads": Field(Count()),
        "cores": Field(_Cores(), description='cores to stay on: their numbers, or "big" for those of highest capacity'),
        "warmup_runs": Field(Count(3)),
        "warmup_time": Field(Quantity("duration", "1s"), "warmup_s"),
        "min_time": Field(Quantity("duration"), "min_s"),
        "max_time": Field(Quantity("duration"), "max_s", description="timed runs end then, converged or not"),
        "min_runs": Field(Count(10), description="200 give a p95 with bounds"),
        "max_runs": Field(Count(10)),
        "ci_share": Field(Share(), description="width of the median's confidence interval at which timed runs end"),
        "memory_workers": Field(Count()),
        "deadline": Field(Quantity("duration"), "deadline_s", description="of the whole measurement but energy"),
        "energy": Field(_YesNoAuto(), description="auto: where a budget limits it, or it is asked for"),
        "energy_min_time": Field(Quantity("duration"), "energy_min_s", description="of load, and of rest around it"),
        "energy_min_samples": Field(Count(10), description="of the sensor in each of these times"),
        "start_below": Field(Number(above=True), "start_below_c", description="wait until it is no hotter (°C)"),
        "cool_down": Field(Quantity("duration"), "cool_down_s", description="how long to wait for that"),
        "keep_artifacts": Field(
            Quantity("size"),
            "keep_artifacts_bytes",
            description="of artifacts that stay on the device between sessions",
        ),
        "throttle_retries": Field(Count(0), description="how often to measure again, after cooling"),
    },
)
PROFILE = Table(
    dict,
    {
        "schema": Field(Choice((SCHEMA,))),
        "name": Field(Text("my-board", r"[a-z0-9][a-z0-9._-]*"), required=True),
        "title": Field(Text()),
        "extends": Field(Text("raspberry-pi-4b"), description="a shipped profile's name, or a path from this file"),
        "abstract": Field(Boolean(), description="true for a base that only others extend"),
        "detect": Field(Boolean(), description="fill in what this machine says of itself and the file does not"),
        "system": Field(Choice(("linux", "android"))),
        "soc": Field(Text()),
        "cores": Field(ListOf(_CORES)),
        "isa": Field(Text("armv8.2-a")),
        "features": Field(ListOf(Text("asimddp")), description="as the kernel names them in /proc/cpuinfo"),
        "bits": Field(Choice((32, 64)), description="of the userland"),
        "ram": Field(Quantity("size"), "ram_bytes"),
        "runtimes": Field(MapOf(Text()), description="what can run on the device, with a note on each"),
        "power_sensors": Field(ListOf(_POWER_SENSOR)),
        "throttle_sources": Field(ListOf(_THROTTLE_SOURCE)),
        "alignment": Field(Count(), description="widths are rounded to multiples of it by default"),
        "measurement": Field(_MEASUREMENT),
        "budget": Field(BudgetLimits(), description="the default budget"),
    },
)
_NOT_INHERITED = ("schema", "name", "title", "extends", "abstract")


def profile_folder() -> Path:
    """Where the shipped profiles lie: inside the package once it is installed, beside it in a source tree."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "device_profiles", package.parent / "device_profiles"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"no device profiles beside {package}", hint="the installation is incomplete; install it again")


@cache
def profile_names() -> tuple[str, ...]:
    """The names of the shipped profiles that are not abstract, sorted."""
    return tuple(name for name, path in _shipped().items() if not _is_abstract(read_document(path)))


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """A profile by name or path, with all that it inherits; raises ConfigError."""
    path = _find(str(name_or_path))
    if path is None:
        hint = f"{did_you_mean(str(name_or_path), profile_names())}; or the path of a YAML file"
        raise ConfigError(f"no device profile is called {str(name_or_path)!r}", key="profile", hint=hint)
    profile = _load(path, ())
    if profile.abstract:
        hint = f"take one that extends it: {', '.join(profile_names())}"
        raise ConfigError(f"{profile.name} is abstract: it describes no device on its own", path=path, hint=hint)
    return profile


def is_path(text: str) -> bool:
    """Whether a reference to a profile is a path and not a name."""
    return "/" in text or "\\" in text or text.endswith((".yaml", ".yml"))


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(profile_folder().glob("*.yaml"))}


def _find(reference: str, folder: Path | None = None) -> Path | None:
    """The file of a profile; None where a name is unknown. A path may name a file that does not exist."""
    if not is_path(reference):
        return _shipped().get(reference)
    path = Path(reference).expanduser()
    return path if folder is None else folder / path


def _is_abstract(document: Entry) -> bool:
    flag = document.table().get("abstract")
    return flag is not None and flag.content is True


def _load(path: Path, children: tuple[Path, ...]) -> DeviceProfile:
    document, lineage = _inherit(path, children)
    values = PROFILE.read(document)
    return _build(values, document, lineage, path)


def _inherit(path: Path, children: tuple[Path, ...]) -> tuple[Entry, tuple[str, ...]]:
    """The file's document over those it extends, and their names, nearest first."""
    own = read_document(path)
    extends = own.table().get("extends")
    if extends is None:
        return own, ()
    reference = PROFILE.fields["extends"].kind.read(extends)
    base_path = _find(reference, path.parent)
    if base_path is None:
        hint = f"{did_you_mean(reference, _shipped())}; or a path relative to this file"
        raise extends.error(f"no device profile is called {reference!r}", hint=hint)
    chain = (*children, path.resolve())
    if base_path.resolve() in chain:
        names = " -> ".join(file.name for file in (*chain, base_path.resolve()))
        raise extends.error(f"profiles extend each other in a circle: {names}", hint="break the circle here")
    if not base_path.is_file():
        raise extends.error(f"no such file: {base_path}", hint="a path is relative to this file")
    base, lineage = _inherit(base_path, chain)
    PROFILE.read(base)  # a base with a mistake is refused even where the mistake is overridden
    name = str(base.table()["name"].content)
    inherited = {key: entry for key, entry in base.table().items() if key not in _NOT_INHERITED}
    return merge(replace(base, content=inherited), own), (name, *lineage)


def _build(values: dict[str, Any], document: Entry, lineage: tuple[str, ...], path: Path) -> DeviceProfile:
    detected = host.detect() if values.pop("detect", False) else {}
    values.pop("schema", None)
    values.pop("extends", None)
    policy = MeasurementPolicy(**values.pop("measurement", {}))
    profile = DeviceProfile(**{**detected, **values}, measurement=policy, lineage=lineage, path=path)
    _check_policy(profile, document)
    return profile


def _check_policy(profile: DeviceProfile, document: Entry) -> None:
    policy = profile.measurement
    measurement = document.table().get("measurement", document)
    places: Mapping[str, Entry] = measurement.table() if measurement is not document else {}

    def refuse(key: str, message: str, hint: str) -> ConfigError:
        return places.get(key, measurement).error(message, hint=hint)

    if policy.max_s < policy.min_s:
        raise refuse("max_time", f"{policy.max_s:g}s is less than min_time", f"at least {policy.min_s:g}s")
    if policy.max_runs < policy.min_runs:
        raise refuse("max_runs", f"{policy.max_runs} is less than min_runs", f"at least {policy.min_runs}")
    if policy.deadline_s <= policy.warmup_s + policy.max_s:
        longest = policy.warmup_s + policy.max_s
        raise refuse(
            "deadline", f"{policy.deadline_s:g}s leaves no time beside the timed runs", f"more than {longest:g}s"
        )
    if policy.cores != "big" and 0 < len(policy.cores) < policy.threads:
        cores, threads = len(policy.cores), policy.threads
        raise refuse("cores", f"{cores} cores for {threads} threads", "one for each thread at least")
    if profile.abstract:
        return
    if profile.core_count is not None and policy.threads > profile.core_count:
        raise refuse(
            "threads", f"{policy.threads} threads, but the device has {profile.core_count} cores", "at most one a core"
        )
    if profile.runtimes and policy.runtime not in profile.runtimes:
        raise refuse(
            "runtime",
            f"{policy.runtime!r} is not among the runtimes of this device",
            did_you_mean(policy.runtime, profile.runtimes),
        )
