"""Heat and throttling through a whole session, on a folder in place of proc and sys."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgeprune.measure.session import Session
from edgeprune.records.artifact import Artifact
from edgeprune.records.figures import figures_of
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
from tests.measure.test_energy import Rooted
from tests.onnx_models import chain_of_matmuls

POLICY = MeasurementPolicy(
    warmup_s=0.05, min_s=0.05, max_s=1.0, min_runs=20, ci_share=0.5, memory_workers=0, cool_down_s=0.2
)
COOLING = "sys/class/thermal/cooling_device0/"


def measure(tmp_path: Path, files: dict[str, str], **changes: Any) -> tuple[Measurement, Artifact]:
    root = tmp_path / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    (root / "proc").symlink_to("/proc")
    model = chain_of_matmuls(tmp_path / "model.onnx", width=64, layers=2)
    policy = dataclasses.replace(POLICY, **changes)
    with Session(Rooted(root), DeviceProfile("bench", measurement=policy)) as session:
        return session.measure(model), model


def test_a_hot_start_is_flagged(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone0/"
    found, _ = measure(tmp_path, {zone + "type": "cpu-thermal", zone + "temp": "71500"}, start_below_c=60.0)
    assert found.outcome is Outcome.OK
    assert "the device did not cool down: it was 71.5 C hot at the start, not below 60 C, after 0.2 s" in found.warnings
    assert found.conditions["during"]["hottest_c"] == 71.5


def test_throttling_is_never_accepted(tmp_path: Path) -> None:
    found, model = measure(tmp_path, {COOLING + "type": "cpufreq-cpu0", COOLING + "cur_state": "1"})
    assert found.outcome is Outcome.THROTTLED
    assert "the kernel slows the processor" in found.message
    assert (found.latency, found.memory, found.energy) == (None, None, None)
    assert figures_of(found, model, None)["latency.p50"].value is None


def test_the_clock_under_load_is_told(tmp_path: Path) -> None:
    policy = "sys/devices/system/cpu/cpufreq/policy0/"
    files = {"scaling_cur_freq": "600000", "scaling_max_freq": "1800000", "cpuinfo_max_freq": "1800000"}
    found, _ = measure(
        tmp_path, {policy + name: text for name, text in files.items()}, min_s=6.0, max_s=8.0, max_runs=10**9
    )
    assert found.outcome is Outcome.OK
    assert "the processor ran at 33% of its highest clock, or less, under load" in found.warnings
