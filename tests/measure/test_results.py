"""From what the agent's workers say to the record: memory."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune.measure.energy_run import EnergyRun
from edgeprune.measure.results import measurement, memory
from edgeprune.records.measurement import Measurement, Provenance
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy

MIB = 1 << 20
NO_ENERGY = EnergyRun(DeviceProfile("bench"), MeasurementPolicy(), asked=False)


def worker(**changes: Any) -> dict[str, Any]:
    base = {"peak": 100 * MIB, "resident": 100 * MIB, "anonymous": 40 * MIB, "file": 60 * MIB, "swapped": 0}
    high = {**base, "peak": 150 * MIB, "resident": 150 * MIB, "anonymous": 85 * MIB, "file": 65 * MIB}
    idle = {"base": base, "loaded": base, "ran": base, "sampled": base, "rounding": 4096}
    idle |= {"peak": 100 * MIB + 8192, "reset": True}
    used = {"idle": base, "base": base, "loaded": high, "ran": high, "sampled": high, "reset": True, "rounding": 4096}
    used |= {"peak": 150 * MIB, "inference": 3 * MIB, "idle_worker": idle}
    return {**used, **changes}


def test_figures_are_medians_and_the_noise_is_the_largest_seen() -> None:
    found = memory([worker(), worker(peak=151 * MIB), worker(peak=150 * MIB + 4096)])
    assert found.model_peak_bytes == 50 * MIB + 4096
    assert (found.anonymous_peak_bytes, found.file_peak_bytes) == (45 * MIB, 5 * MIB)
    assert (found.process_peak_bytes, found.idle_bytes, found.workers) == (151 * MIB, 100 * MIB, 3)
    assert found.noise_bytes == MIB
    assert memory([worker()]).noise_bytes == 8192  # an idle worker's own growth
    assert memory([worker(rounding=123456)]).noise_bytes == 123456


def test_a_peak_that_no_sample_saw_is_not_split() -> None:
    found = memory([worker(peak=170 * MIB)])
    assert (found.anonymous_peak_bytes, found.file_peak_bytes) == (None, None)
    assert found.model_peak_bytes == 70 * MIB


def test_without_reset_the_growth_is_over_the_idle_worker() -> None:
    found = memory([worker(inference=None, reset=False)])
    assert (found.model_peak_bytes, found.inference_peak_bytes) == (50 * MIB - 8192, None)


def test_a_sample_above_the_noted_peak_counts() -> None:
    sampled = {**worker()["sampled"], "resident": 152 * MIB}
    assert memory([worker(sampled=sampled)]).model_peak_bytes == 52 * MIB


def test_swapped_memory_is_told() -> None:
    swapped = {**worker()["ran"], "swapped": 5 * MIB}
    assert memory([worker(), worker(ran=swapped)]).swapped_bytes == 5 * MIB


def test_nvmap_is_told_with_its_scope() -> None:
    found = memory([worker(nvmap={"growth": 7 * MIB, "scope": "device"})])
    assert (found.nvmap_peak_bytes, found.nvmap_scope) == (7 * MIB, "device")
    assert memory([worker()]).nvmap_peak_bytes is None


def record(*workers: dict[str, Any]) -> Measurement:
    frame = {
        "outcome": "OK",
        "latency": {"runs": 1, "warmup_runs": 3, "converged": True},
        "memory": list(workers),
        "missing": {},
        "conditions": {"before": {}, "after": {}},
    }
    provenance = Provenance("local", "bench", {}, "onnxruntime", "1", 1, "", "")
    return measurement("0", frame, [1000], provenance=provenance, energy=NO_ENERGY, cpus=1, seconds=1.0)


def test_what_makes_a_memory_figure_doubtful_is_warned_of() -> None:
    swapped = {**worker()["ran"], "swapped": 4096}
    assert record(worker()).warnings == ()
    (warning,) = record(worker(ran=swapped)).warnings
    assert warning.startswith("4096 bytes of a worker were swapped out")
    (warning,) = record(worker(reset=False, inference=None)).warnings
    assert "may be understated" in warning
    (warning,) = record(worker(nvmap={"growth": 0, "scope": "device"})).warnings
    assert "all processes of the device" in warning
    assert record(worker(nvmap={"growth": 0, "scope": "process"})).warnings == ()


@pytest.mark.parametrize(
    ("outcome", "advice"),
    [
        ("OOM", "free memory on the device"),
        ("THROTTLED", "let it cool down"),
        ("TIMEOUT", "allow more in the measurement policy"),
        ("CRASHED", "Try another one"),
    ],
)
def test_a_failure_says_what_to_do_next(outcome: str, advice: str) -> None:
    provenance = Provenance("local", "bench", {}, "onnxruntime", "1", 1, "", "")
    frame = {"outcome": outcome, "message": "it ended"}
    found = measurement("0", frame, [], provenance=provenance, energy=NO_ENERGY, cpus=1, seconds=1.0)
    assert found.message.startswith("it ended; ")
    assert advice in found.message
    assert found.missing["peak_memory"] == f"{outcome}: {found.message}"


def test_a_missing_split_says_why() -> None:
    found = record(worker(peak=170 * MIB))
    assert "no sample came near the peak" in found.missing["peak_memory.anonymous"]
    assert "peak_memory.anonymous" not in record(worker()).missing
