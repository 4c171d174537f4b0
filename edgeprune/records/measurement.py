"""What one measurement of one artifact on one target says: outcome, statistics, raw samples, provenance.

A failure is an outcome with a name, never a missing number and never an average over part of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["SCHEMA", "Energy", "Latency", "Measurement", "Memory", "Modes", "Outcome", "Provenance", "Window"]

SCHEMA = "edgeprune.measurement/2"  # 1: without the later fields of Memory and Provenance


class Outcome(str, Enum):
    """How a measurement ended. All but OK and OOM say: could not measure (exit code 3)."""

    OK = "OK"
    OOM = "OOM"  # the artifact does not fit: a valid result, the candidate is infeasible
    THROTTLED = "THROTTLED"
    REBOOTED = "REBOOTED"
    LOST = "LOST"
    NO_SPACE = "NO_SPACE"
    BUSY = "BUSY"
    NO_RUNTIME = "NO_RUNTIME"
    NO_CORES = "NO_CORES"  # the policy names cores that the device has not, or does not tell apart
    NO_PROFILER = "NO_PROFILER"  # the runtime cannot say how long single operators take
    TIMEOUT = "TIMEOUT"
    CRASHED = "CRASHED"  # a search takes it for a result of a network that it happens to twice in a row

    @property
    def is_result(self) -> bool:
        """True where the outcome says something about the artifact, and not about the attempt."""
        return self in (Outcome.OK, Outcome.OOM)


@dataclass(frozen=True, slots=True)
class Modes:
    """Two states between which the device switched: the median of each in ms, and its share of the runs."""

    low_ms: float
    low_share: float
    high_ms: float
    high_share: float


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a sustained measurement. What was not seen in it is None; `throttled` says why it slowed, or ""."""

    start_s: float
    seconds: float
    runs: int
    p50_ms: float
    p95_ms: float | None  # None below 130 runs
    temperature_c: float | None = None
    frequency_khz: int | None = None
    throttled: str = ""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one inference, in milliseconds. `upper_ms` and `lower_ms` bound each statistic with 95 % confidence.

    `percentile_ms` holds only what the sample count honestly supports (p90 from 64 runs, p95 130, p99 662);
    `refused` says of each other percentile why it is missing.
    """

    samples: int
    mean_ms: float
    std_ms: float
    min_ms: float
    max_ms: float
    percentile_ms: Mapping[str, float]  # "p50", "p90", "p95", "p99"
    lower_ms: Mapping[str, float]
    upper_ms: Mapping[str, float]
    refused: Mapping[str, str] = field(default_factory=dict)
    raw_ms: tuple[float, ...] = ()
    warmup_runs: int = 0
    converged: bool = True  # the interval of the median came within the policy's share before the cap
    modes: Modes | None = None  # where the runs are of two separate kinds


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory in bytes, from fresh worker processes (`VmHWM`), medians over them; the allocator is left as it is.

    `model_peak_bytes`: growth of the peak from the idle worker, with its runtime loaded and no model, until the model
    was loaded and has run; `process_peak_bytes`: peak of the whole worker. `noise_bytes` is the largest of: spread
    (max - min) of the model peak between workers, growth of workers that loaded no model, rounding of the kernel's
    counters. `anonymous_peak_bytes` and `file_peak_bytes` split the growth at the highest sample (2 ms apart) into
    memory that only swapping frees, and pages of files (libraries, mapped weights), which the kernel can drop.
    """

    model_peak_bytes: int
    process_peak_bytes: int
    idle_bytes: int
    noise_bytes: int
    workers: int
    inference_peak_bytes: int | None = None  # growth after load, where the peak can be reset
    anonymous_peak_bytes: int | None = None
    file_peak_bytes: int | None = None
    swapped_bytes: int = 0  # the most that a worker had swapped out: the peaks are understated by so much
    nvmap_peak_bytes: int | None = None  # growth of the memory that a Jetson's graphics processor maps
    nvmap_scope: str = ""  # "process", or "device" where other processes count as well


@dataclass(frozen=True, slots=True)
class Energy:
    """Per inference, in millijoules, as read from a sensor. `net_mj` is `gross_mj` less what the idle device draws.

    The bounds are those of 95 % confidence, from blocks of the run and, for net, from the idle before and after it;
    they say nothing of the sensor's own accuracy. None where the blocks give no interval.
    """

    gross_mj: float
    net_mj: float
    sensor: str
    scope: str  # "board", "module", "soc", "rails": what the sensor sees
    samples: int  # while inferences ran
    rails: tuple[str, ...] = ()  # that were added up
    note: str = ""  # what the sensor does not see
    rate_hz: float = 0.0  # as achieved
    runs: int = 0
    seconds: float = 0.0
    latency_ms: float = 0.0  # mean of the same runs
    idle_w: float = 0.0  # with the model loaded, mean of before and after
    idle_change: float = 0.0  # between before and after, as a share
    gross_lower_mj: float | None = None
    gross_upper_mj: float | None = None
    net_lower_mj: float | None = None
    net_upper_mj: float | None = None
    failed: Mapping[str, int] = field(default_factory=dict)  # readings by error: "EAGAIN" -> 3
    quantity: str = "power"  # of `raw`: "power" in W, or "energy" in J since the first reading
    raw: tuple[tuple[float, float], ...] = ()  # (s since the first sample, value), rests included
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # "before", "load", "after", in s as `raw`


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a measurement comes from."""

    target: str
    profile: str
    machine: Mapping[str, Any]  # as the agent saw it: SoC, kernel, boot id, CPUs, memory, governor
    runtime: str  # "onnxruntime"
    runtime_version: str
    threads: int
    agent_sha256: str
    started_at: str  # ISO 8601, UTC
    clock: str = "CLOCK_MONOTONIC_RAW"
    cores: tuple[int, ...] = ()  # that the worker stayed on; () where the scheduler chose


@dataclass(frozen=True, slots=True)
class Measurement:
    """One artifact on one target. Parts that were not or could not be measured are None; `missing` says why."""

    artifact_sha256: str
    outcome: Outcome
    provenance: Provenance | None
    latency: Latency | None = None
    memory: Memory | None = None
    energy: Energy | None = None
    missing: Mapping[str, str] = field(default_factory=dict)  # "energy" -> "no power sensor: ..."
    conditions: Mapping[str, Any] = field(default_factory=dict)  # preflight and after: load, temperature_c, throttled
    warnings: tuple[str, ...] = ()
    message: str = ""  # for outcomes other than OK: what happened, and what to do
    seconds: float = 0.0
    sustained: tuple[Window, ...] = ()  # of a sustained measurement, in the order of time
