"""A device profile: SoC, memory, runtimes, sensors, alignment, measurement policy, default budget.

What its user writes:

    name: my-camera
    extends: raspberry-pi-zero-2-w     # a shipped profile's name, or a path relative to this file
    title: Camera with the Zero 2 W module
    measurement: {threads: 4, min_time: 5s}
    budget: {latency: {p95: 30ms}, peak_memory: 50MiB}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeprune.records.budget import Budget

__all__ = [
    "DEVICE_SENSORS",
    "SCHEMA",
    "CoreCluster",
    "DeviceProfile",
    "MeasurementPolicy",
    "PowerSensor",
    "ThrottleSource",
    "load_profile",
    "profile_names",
]

SCHEMA = "edgeprune.profile/1"
DEVICE_SENSORS = ("hwmon", "powercap", "vcgencmd", "iio", "battery")  # kinds that the agent reads


@dataclass(frozen=True, slots=True)
class CoreCluster:
    """Cores of one kind. `max_mhz` is their highest clock by data sheet or by cpufreq, None where neither says."""

    count: int
    name: str  # "Cortex-A76"
    max_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class PowerSensor:
    """A sensor that the board has, and what its reading covers."""

    name: str  # "ina3221", "rapl", "pmic"
    kind: str  # how the device reads it: "hwmon", "powercap", "vcgencmd", "iio", "battery"; or a meter at the host
    scope: str  # "board", "module", "soc", "rails"
    rails: tuple[str, ...] = ()
    note: str = ""
    total: str = ""  # the rail that feeds the others: it alone is counted
    source: str = ""  # which of several chips: a part of its path; what a meter is to read: "meter.csv"


@dataclass(frozen=True, slots=True)
class ThrottleSource:
    """Where the device says that it slowed itself down, or is about to."""

    name: str
    source: str  # a file below /sys or /proc, or a command
    note: str = ""


@dataclass(frozen=True, slots=True)
class MeasurementPolicy:
    """How an artifact is measured: timed runs go on until the interval of the median is within `ci_share`
    and both `min_s` and `min_runs` are reached, or until `max_s` or `max_runs` is.

    `min_runs` of at least 200 gives an honest p95 (130 runs) with bounds on both sides. `runtime` runs the formats that
    it takes; any other format runs in the first runtime on the device that takes it. `cores` are those that the worker
    stays on: numbers as the kernel counts them, or "big", those of the highest capacity; () leaves it to the scheduler.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    cores: tuple[int, ...] | Literal["big"] = ()
    warmup_runs: int = 3
    warmup_s: float = 1.0
    min_s: float = 2.0
    max_s: float = 20.0
    min_runs: int = 200
    max_runs: int = 20_000
    ci_share: float = 0.02
    memory_workers: int = 3
    deadline_s: float = 180.0  # of the whole measurement, all passes together but that of energy
    energy: bool | Literal["auto"] = "auto"  # "auto": where a budget limits it, or it is asked for
    energy_min_s: float = 10.0  # of load, and of rest before and after it
    energy_min_samples: int = 100  # in each of these
    energy_rate_hz: float = 10.0
    energy_settle_s: float = 1.0
    start_below_c: float | None = None  # wait until the processor is no hotter
    cool_down_s: float = 120.0  # how long to wait for that, and after throttling
    throttle_retries: int = 1
    keep_artifacts_bytes: int = 0  # on the device from one session to the next, for slow links; 0 leaves nothing there


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A kind of device. What no data sheet or kernel says is left empty, never guessed.

    `alignment` is the multiple that the search rounds widths to by default; `runtimes` maps what can run on the
    board to a note; `lineage` names the profiles that this one extends, nearest first.
    """

    name: str
    title: str = ""
    system: str = "linux"  # "linux" or "android"
    soc: str = ""
    cores: tuple[CoreCluster, ...] = ()
    isa: str = ""  # "armv8.2-a"
    features: tuple[str, ...] = ()  # as the kernel names them in /proc/cpuinfo: "asimddp"
    bits: int | None = None
    ram_bytes: int | None = None
    runtimes: Mapping[str, str] = field(default_factory=dict)
    power_sensors: tuple[PowerSensor, ...] = ()
    throttle_sources: tuple[ThrottleSource, ...] = ()
    alignment: int = 8
    measurement: MeasurementPolicy = field(default_factory=MeasurementPolicy)
    budget: Budget = field(default_factory=Budget)
    abstract: bool = False
    lineage: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def core_count(self) -> int | None:
        """All cores of all clusters, None where the profile does not say."""
        return sum(cluster.count for cluster in self.cores) or None

    def to_json(self) -> dict[str, Any]:
        """All fields as plain data, in the units of the field names; the budget as it was written."""
        data = {"schema": SCHEMA, **asdict(self)}
        data["budget"] = self.budget.to_json()
        data["path"] = None if self.path is None else str(self.path)
        return data


def profile_names() -> tuple[str, ...]:
    """The names of the shipped profiles that a target can have, sorted; abstract bases are left out."""
    from edgeprune.records import profile_reader

    return profile_reader.profile_names()


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """A shipped profile by its name, or one from a YAML file; `host` is completed by what this machine says of itself.

    Raises ConfigError with file, line, column and key.
    """
    from edgeprune.records import profile_reader

    return profile_reader.load_profile(name_or_path)
