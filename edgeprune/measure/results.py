"""From the agent's answer to a record. What was not measured is missing with its reason, never a number."""

from __future__ import annotations

import statistics as standard
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.measure.statistics import median_share, summarize
from edgeprune.measure.sustained import sustained_warnings, windows
from edgeprune.records.measurement import Measurement, Memory, Outcome, Provenance

if TYPE_CHECKING:
    from edgeprune.measure.energy_run import EnergyRun

__all__ = ["failed", "measurement", "memory"]

_ENERGY_LATENCY_SHARE = 0.1  # by which the mean latency may differ while energy is measured
_CLOCK_SHARE = 0.9
_LOAD_SHARE = 0.5  # of the processors in use by others before the start
# What to do, where the agent's message does not say it itself.
_NEXT = {
    Outcome.OOM: "the model does not fit: make it smaller, or free memory on the device",
    Outcome.THROTTLED: "let it cool down, see to its cooling and power supply, and measure again",
    Outcome.TIMEOUT: "allow more in the measurement policy (deadline), or ask for less (max_time, memory_workers)",
    Outcome.CRASHED: "does this version of the runtime know the model's operators? Try another one, or export again",
}
_NO_SPLIT = "no sample came near the peak, or the kernel does not tell RssAnon (Linux 4.5): peak_memory is not split"
_SEEN_SHARE, _SEEN_BYTES = 0.05, 1 << 20  # that the highest sample of the memory may lie below the peak


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
    energy: EnergyRun,
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
            "; ".join(filter(None, (str(frame.get("message", "")), _NEXT.get(outcome)))),
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
    missing = dict(frame.get("missing") or {})
    energy_used = energy.result(frame.get("energy") or {})
    if energy_used is None:
        missing["energy"] = energy.missing
    workers = frame.get("memory") or []
    if not workers:
        missing.setdefault("peak_memory", "the measurement policy asks for no memory workers")
    used = memory(workers) if workers else None
    if used is not None and used.anonymous_peak_bytes is None:
        missing["peak_memory.anonymous"] = missing["peak_memory.file"] = _NO_SPLIT
    warnings = condition_warnings(conditions, cpus)
    if used is not None:
        warnings += _memory_warnings(used, workers)
    if energy_used is not None and abs(energy_used.latency_ms / latency.mean_ms - 1) > _ENERGY_LATENCY_SHARE:
        warnings.append(
            f"while its energy was measured an inference took {energy_used.latency_ms:.4g} ms, "
            f"else {latency.mean_ms:.4g} ms"
        )
    sustained = frame.get("trace") is not None
    found = windows(samples_ns, frame["trace"], frame["pass_s"]) if sustained else ()
    if found:
        warnings += sustained_warnings(found)
    if not timed.get("warm", True):
        warnings.append("runs still got faster when the warm-up ended: a longer `warmup_s` gives steadier figures")
    if latency.modes is not None:
        two = latency.modes
        warnings.append(
            f"runs are of two kinds: {two.low_share:.0%} about {two.low_ms:.4g} ms, {two.high_share:.0%} about "
            f"{two.high_ms:.4g} ms; the device switches between two states (clocks, cores, another program)"
        )
    if not latency.converged and not sustained:
        warnings.append(
            f"the interval of the median is still {median_share(latency):.1%} wide after {latency.samples} runs"
        )
    return Measurement(
        artifact_sha256=sha256,
        outcome=outcome,
        provenance=provenance,
        latency=latency,
        memory=used,
        energy=energy_used,
        missing=missing,
        conditions={**conditions, "memory_workers": workers},
        warnings=tuple(warnings),
        seconds=seconds,
        sustained=found,
    )


def memory(workers: Sequence[Mapping[str, Any]]) -> Memory:
    """Figures of pairs of workers, one idle and one with the model."""
    idle = [worker["idle_worker"] for worker in workers]
    growth = [_growth(worker) for worker in workers]
    inference = [worker["inference"] for worker in workers]
    splits = [split for worker in workers if (split := _split(worker)) is not None]
    mapped = [worker["nvmap"] for worker in workers if "nvmap" in worker]
    stages = [worker[stage] for worker in (*workers, *idle) for stage in ("base", "loaded", "ran", "sampled")]
    return Memory(
        model_peak_bytes=max(0, round(standard.median(growth))),
        process_peak_bytes=max(max(worker["idle"]["peak"], _peak(worker)) for worker in workers),
        idle_bytes=round(standard.median(worker["base"]["resident"] for worker in workers)),
        noise_bytes=max(
            max(growth) - min(growth),
            *(max(0, _peak(worker) - worker["base"]["resident"]) for worker in idle),
            *(worker["rounding"] for worker in (*workers, *idle)),
        ),
        workers=len(workers),
        inference_peak_bytes=None if None in inference else max(0, round(standard.median(inference))),
        anonymous_peak_bytes=round(standard.median(split[0] for split in splits)) if splits else None,
        file_peak_bytes=round(standard.median(split[1] for split in splits)) if splits else None,
        swapped_bytes=max(stage.get("swapped", 0) for stage in stages),
        nvmap_peak_bytes=max(0, round(standard.median(entry["growth"] for entry in mapped))) if mapped else None,
        nvmap_scope=mapped[0]["scope"] if mapped else "",
    )


def _growth(worker: Mapping[str, Any]) -> int:
    """Of the peak, over the same worker before it loaded the model; over another one where the peak cannot be reset."""
    if worker["reset"]:
        return _peak(worker) - int(worker["base"]["resident"])
    return _peak(worker) - int(worker["idle_worker"]["peak"])


def _peak(worker: Mapping[str, Any]) -> int:
    """VmHWM, or a sample where that was higher: the kernel notes a passing peak by counters that lag."""
    return max(int(worker["peak"]), int(worker["sampled"].get("resident", 0)))


def _split(worker: Mapping[str, Any]) -> tuple[int, int] | None:
    """Anonymous and file-backed growth at the highest sample; None where none came near the peak, or none is told."""
    base = worker["base"]
    stages = [worker[name] for name in ("sampled", "loaded", "ran") if "anonymous" in worker[name]]
    if not stages or "anonymous" not in base:
        return None
    highest = max(stages, key=lambda stage: int(stage["resident"]))
    if _peak(worker) - highest["resident"] > max(_SEEN_SHARE * _growth(worker), _SEEN_BYTES):
        return None
    return int(highest["anonymous"] - base["anonymous"]), int(highest["file"] - base["file"])


def _memory_warnings(used: Memory, workers: Sequence[Mapping[str, Any]]) -> list[str]:
    warnings = []
    if used.swapped_bytes:
        warnings.append(
            f"{used.swapped_bytes} bytes of a worker were swapped out: its peak memory is understated by as much; "
            "turn swap off (swapoff -a) or free memory, and measure again"
        )
    if not all(worker["reset"] for worker in workers):
        warnings.append(
            "the kernel does not reset VmHWM (clear_refs): the model's peak is over that of an idle worker's import, "
            "and may be understated"
        )
    if used.nvmap_scope == "device":
        warnings.append(
            "the growth of NvMapMemUsed is that of all processes of the device; as root, the worker's own is told"
        )
    return warnings


def condition_warnings(conditions: Mapping[str, Any], cpus: int) -> list[str]:
    """What of the device's state makes the figures less sure."""
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
    if conditions.get("hot_start"):
        warnings.append(f"the device did not cool down: {conditions['hot_start']}")
    warnings += [f"measured again after it was throttled: {text}" for text in conditions.get("throttled_attempts", ())]
    if ((before.get("throttled") or 0) & 0xF0000) != 0:
        warnings.append("the firmware throttled before: it says nothing of short times since; restart the device")
    share = (conditions.get("during") or {}).get("clock_share")
    if share is not None and share < _CLOCK_SHARE:
        warnings.append(f"the processor ran at {share:.0%} of its highest clock, or less, under load")
    return warnings
