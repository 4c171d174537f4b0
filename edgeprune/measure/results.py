"""From the agent's answer to a record. What was not measured is missing with its reason, never a number."""

from __future__ import annotations

import statistics as standard
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.measure.statistics import median_share, summarize
from edgeprune.records.measurement import Measurement, Memory, Outcome, Provenance

if TYPE_CHECKING:
    from edgeprune.records.profile import DeviceProfile

__all__ = ["energy_missing", "failed", "measurement", "memory"]

_LOAD_SHARE = 0.5  # of the processors in use by others before the start


def failed(
    sha256: str,
    outcome: Outcome,
    message: str,
    *,
    provenance: Provenance | None,
    conditions: Mapping[str, Any] | None = None,
    seconds: float = 0.0,
) -> Measurement:
    """The record of a measurement without figures."""
    reason = f"{outcome.value}: {message}"
    return Measurement(
        artifact_sha256=sha256,
        outcome=outcome,
        provenance=provenance,
        missing=dict.fromkeys(("latency", "peak_memory", "energy"), reason),
        conditions=dict(conditions or {}),
        message=message,
        seconds=seconds,
    )


def measurement(
    sha256: str,
    frame: Mapping[str, Any],
    samples_ns: Sequence[int],
    *,
    provenance: Provenance,
    energy_missing: str,
    cpus: int,
    seconds: float,
) -> Measurement:
    """The record that the agent's result frame and its samples make."""
    outcome = Outcome(frame["outcome"])
    conditions = dict(frame.get("conditions") or {})
    if outcome is not Outcome.OK:
        return failed(
            sha256,
            outcome,
            str(frame.get("message", "")),
            provenance=provenance,
            conditions=conditions,
            seconds=seconds,
        )
    timed = frame["latency"]
    if len(samples_ns) != timed["runs"]:
        message = f"{len(samples_ns)} of {timed['runs']} samples arrived"
        return failed(sha256, Outcome.LOST, message, provenance=provenance, conditions=conditions, seconds=seconds)
    latency = summarize(
        [sample / 1e6 for sample in samples_ns], warmup_runs=timed["warmup_runs"], converged=timed["converged"]
    )
    missing = {"energy": energy_missing, **dict(frame.get("missing") or {})}
    workers = frame.get("memory") or []
    if not workers:
        missing.setdefault("peak_memory", "the measurement policy asks for no memory workers")
    warnings = _warnings(conditions, workers, cpus)
    if not latency.converged:
        warnings.append(
            f"the interval of the median is still {median_share(latency):.1%} wide after {latency.samples} runs"
        )
    return Measurement(
        artifact_sha256=sha256,
        outcome=outcome,
        provenance=provenance,
        latency=latency,
        memory=memory(workers) if workers else None,
        missing=missing,
        conditions={**conditions, "memory_workers": workers},
        warnings=tuple(warnings),
        seconds=seconds,
    )


def memory(workers: Sequence[Mapping[str, Any]]) -> Memory:
    """Figures of pairs of workers, one idle and one with the model: medians of the growth, its spread as the noise."""
    growth = [worker["peak"] - worker["idle"]["peak"] for worker in workers]
    inference = [worker["inference"] for worker in workers]
    return Memory(
        model_peak_bytes=max(0, round(standard.median(growth))),
        process_peak_bytes=max(worker["peak"] for worker in workers),
        idle_bytes=round(standard.median(worker["idle"]["peak"] for worker in workers)),
        noise_bytes=max(growth) - min(growth),
        workers=len(workers),
        inference_peak_bytes=None if None in inference else max(0, round(standard.median(inference))),
    )


def energy_missing(profile: DeviceProfile) -> str:
    """Why there is no energy figure."""
    if not profile.power_sensors:
        return (
            f"no power sensor: the profile {profile.name!r} names none; "
            "measure on a board with one, or add it to the profile (power_sensors)"
        )
    names = ", ".join(sensor.name for sensor in profile.power_sensors)
    return f"no power sensor is read by this version of edgeprune; the profile {profile.name!r} names {names}"


def _warnings(conditions: Mapping[str, Any], workers: Sequence[Mapping[str, Any]], cpus: int) -> list[str]:
    before, after = conditions.get("before", {}), conditions.get("after", {})
    warnings = []
    load = before.get("load") or [0.0]
    if load[0] > _LOAD_SHARE * cpus:
        warnings.append(f"the device was busy before the start: load {load[0]:.2f} on {cpus} processors")
    slow = [name for name in before.get("governor", []) if name in {"powersave", "ondemand", "conservative"}]
    if slow:
        warnings.append(f"the clock is not held (governor {', '.join(slow)}); 'performance' gives steadier figures")
    if (after.get("swap_used_bytes") or 0) > (before.get("swap_used_bytes") or 0) + (1 << 20):
        warnings.append("the device swapped during the measurement")
    if any(worker.get("ran", {}).get("swapped", 0) for worker in workers):
        warnings.append("part of the worker was swapped out: its peak memory is understated")
    if (after.get("throttle_count") or 0) > (before.get("throttle_count") or 0):
        warnings.append("the processor throttled for heat during the measurement (thermal_throttle counts)")
    return warnings
