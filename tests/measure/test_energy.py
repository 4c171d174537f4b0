"""Energy through a whole session with real inferences, by the device's sensors and by a meter on the host."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.agent.device.energy import Sampler
from edgeprune.agent.device.sensors import open_sensor
from edgeprune.measure.energy import NotMeasuredError, Trace, add_up, energy, integrate
from edgeprune.measure.energy_run import EnergyRun
from edgeprune.measure.meters import CommandMeter, CsvMeter, MeterError, device_times
from edgeprune.measure.session import Session
from edgeprune.records import codec
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import Budget, State
from edgeprune.records.figures import figures_of
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy, PowerSensor
from edgeprune.targets.base import Channel
from edgeprune.targets.local import LocalTarget
from edgeprune.testing.sysfs import Sysfs, sysfs_missing
from tests.onnx_models import chain_of_matmuls

POLICY = MeasurementPolicy(
    warmup_s=0.1, min_s=0.1, max_s=1.0, min_runs=20, ci_share=0.2, memory_workers=0,
    energy=True, energy_min_s=1.5, energy_min_samples=12, energy_settle_s=0.3, energy_rate_hz=20.0,
)  # fmt: skip
INA = "sys/class/hwmon/hwmon1/"
BOARD = DeviceProfile(name="bench", power_sensors=(PowerSensor("ina226", "hwmon", "board"),))


class Rooted(LocalTarget):
    """This machine, with another folder for proc and sys."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def start(self, command: Sequence[str]) -> Channel:
        return super().start([*command, "--root", str(self.root)] if "--folder" in command else command)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return chain_of_matmuls(tmp_path_factory.mktemp("models") / "model.onnx", width=512, layers=4)


def measure(root: Path, model: Artifact, profile: DeviceProfile = BOARD, **changes: Any) -> Measurement:
    with Session(Rooted(root), profile, policy=dataclasses.replace(POLICY, **changes)) as session:
        return session.measure(model)


def test_a_whole_measurement(tmp_path: Path, model: Artifact) -> None:
    """2 W while the worker sleeps, 5 W while it runs; the record's own windows say what is right."""
    if missing := sysfs_missing():
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    files = {INA + "name": "'ina226'", INA + "power1_input": "2e6 + 3e6 * busy + 0.02e6 * math.sin(40 * t)"}
    with Sysfs(tmp_path / "root", files) as sysfs:
        found = measure(sysfs.root, model)
    assert found.outcome is Outcome.OK, found.message
    assert found.energy is not None, found.missing
    per_run = found.energy.seconds / found.energy.runs
    assert found.energy.gross_mj == pytest.approx(5e3 * per_run, rel=0.03)
    assert found.energy.net_mj == pytest.approx(3e3 * per_run, rel=0.05)
    assert found.energy.idle_w == pytest.approx(2.0, rel=0.03)
    assert found.latency is not None
    assert found.energy.latency_ms == per_run * 1e3
    assert "energy" not in found.missing
    figure = figures_of(found, model, None)["energy"]
    assert (figure.value, figure.upper) == (found.energy.net_mj, found.energy.net_upper_mj)
    again = codec.from_json(json.loads(json.dumps(codec.to_json(found))))
    assert isinstance(again, Measurement)
    assert again.energy == found.energy
    budget = Budget.parse({"energy": f"{2 * found.energy.net_mj:.9f}mJ"})
    assert budget.check(figures_of(found, model, None), {}).state is State.MET


def test_a_sensor_that_is_slower_than_its_readings_is_refused(tmp_path: Path, model: Artifact) -> None:
    """A new value each 0.2 s, read each 0.05 s: 13 values are no 20."""
    if missing := sysfs_missing():
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    power = "2e6 + 3e6 * busy + 0.02e6 * math.sin(math.floor(t / 0.2))"
    files = {INA + "name": "'ina226'", INA + "power1_input": power}
    with Sysfs(tmp_path / "root", files) as sysfs:
        found = measure(sysfs.root, model, energy_min_s=2.5, energy_min_samples=20)
    assert (found.outcome, found.energy) == (Outcome.OK, None)
    assert found.missing["energy"].startswith("ina226: it renews its value only every 0.")
    assert found.missing["energy"].endswith("at least 20 are needed: raise energy_min_time in the measurement policy")


def test_a_sensor_that_tells_its_update_interval_is_read_as_often(tmp_path: Path) -> None:
    chip = tmp_path / INA
    chip.mkdir(parents=True)
    for name, text in {"name": "ina226", "power1_input": "2000000", "update_interval": "140"}.items():
        (chip / name).write_text(text + "\n")
    spec = {"name": "ina226", "kind": "hwmon", "rails": [], "source": ""}
    assert Sampler(open_sensor(spec, tmp_path), 0.05).interval_s == 0.14
    assert Sampler(open_sensor(spec, tmp_path), 0.5).interval_s == 0.5
    (chip / "update_interval").unlink()
    assert Sampler(open_sensor(spec, tmp_path), 0.05).interval_s == 0.05


def test_no_sensor_is_a_reason_and_no_failure(tmp_path: Path, model: Artifact) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/proc").symlink_to("/proc")
    found = measure(tmp_path / "root", model)
    assert found.outcome is Outcome.OK
    assert found.latency is not None
    assert found.energy is None
    assert found.missing["energy"] == "ina226: no chip has the rails ina226; found are: none"
    assert measure(tmp_path / "root", model, energy=False).missing["energy"].endswith("says energy: false")


def test_a_meter_on_the_host(tmp_path: Path, model: Artifact) -> None:
    """A program of the host writes 2 W or 5 W, as the device's worker sleeps or runs."""
    program = tmp_path / "meter.py"
    program.write_text(
        "import sys, time, math\nfrom pathlib import Path\nfrom edgeprune.testing.sysfs import _Worker\n"
        f"worker = _Worker({os.getpid()})\n"
        "while True:\n"
        "    begin = time.time()\n"
        "    watts = 2 + 3 * worker.is_busy() + 0.02 * math.sin(40 * time.monotonic())\n"
        "    if time.time() - begin < 0.02:\n"  # else it was not this process's turn: who knows when it looked
        "        print('%.6f,%.4f' % (begin, watts), flush=True)\n"
        "    time.sleep(0.04)\n"
    )
    meter = PowerSensor("bench meter", "command", "board", source=f"{sys.executable} {program}")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/proc").symlink_to("/proc")
    profile = DeviceProfile(name="bench", power_sensors=(*BOARD.power_sensors, meter))
    found = measure(tmp_path / "root", model, profile)
    assert found.energy is not None, found.missing
    assert found.energy.sensor == "bench meter"
    assert found.energy.gross_mj == pytest.approx(5e3 * found.energy.seconds / found.energy.runs, rel=0.03)


# --- arithmetic and checks, on samples that are made


def trace(power: Any, quantity: str = "power", interval_s: float = 0.1, **failed: int) -> Trace:
    ns = [round(n * interval_s * 1e9) for n in range(round(34 / interval_s))]
    return Trace(ns, [power(at / 1e9) for at in ns], quantity, interval_s, failed)


PHASES = {
    "before": [int(1e9), int(11e9)],
    "marks": [[int((12 + n) * 1e9), n * 50] for n in range(11)],
    "after": [int(23e9), int(33e9)],
}
SENSOR = PowerSensor("meter", "hwmon", "board")
FULL = MeasurementPolicy()


def step(t: float) -> float:
    return (5.0 if 11.5 < t < 22.5 else 2.0) + 0.01 * np.sin(40 * t)


def test_defaults_are_ten_seconds_and_a_hundred_samples() -> None:
    assert (FULL.energy_min_s, FULL.energy_min_samples, FULL.energy) == (10.0, 100, "auto")
    found = energy(trace(step), PHASES, SENSOR, FULL)
    assert found.gross_mj == pytest.approx(100, rel=0.002)
    assert found.net_mj == pytest.approx(60, rel=0.002)
    assert found.runs == 500
    with pytest.raises(NotMeasuredError, match=r"51 readings in 10.0 s, at least 100 in 10 s are needed"):
        energy(trace(step, interval_s=0.2), PHASES, SENSOR, FULL)


def test_the_interval_is_of_the_blocks() -> None:
    """Blocks of alternating power: Student's interval by hand."""
    wave = trace(lambda t: step(t) + (0.5 * (-1) ** int(t) if 11.5 < t < 22.5 else 0.0), interval_s=0.01)
    found = energy(wave, PHASES, SENSOR, dataclasses.replace(FULL, energy_rate_hz=100))
    assert found.gross_upper_mj is not None
    half = 2.262157 * np.std([90, 110] * 5, ddof=1) / np.sqrt(10)
    assert found.gross_upper_mj - found.gross_mj == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize(
    ("power", "reason"),
    [
        (lambda t: 0.0 * t, "the sensor is stuck: 0 W"),
        (lambda t: step(t) if t < 15 else step(15), "the sensor is stuck: 5.0"),
        (lambda t: step(t) if not 14 < t < 19 else step(14), r"the sensor is stuck: 5.0.* unlike the rest of the time"),
        (lambda t: -step(t), r"a mean power of -2\S* W idle before the load cannot be"),
        (lambda t: step(t) + (0.2 if t > 22.5 else 0), "idle power was 2 W before and 2.2 W after"),
        (lambda t: step(t) if t < 22.5 else float("nan"), "a mean power of nan W idle after the load cannot be"),
        (lambda t: 2 + 0.01 * np.sin(40 * t) - 0.05 * (11.5 < t < 22.5), "cannot be told from 2 W idle"),
    ],
)
def test_what_no_sensor_can_have_read_is_refused(power: Any, reason: str) -> None:
    with pytest.raises(NotMeasuredError, match=reason):
        energy(trace(power), PHASES, SENSOR, FULL)


def test_a_coarse_sensor_is_not_taken_for_stuck() -> None:
    """Steps of 40 mW, as of an INA3221 with a 5 milliohm shunt: it repeats itself often, and is right."""
    random = np.random.default_rng(0)
    noisy = trace(lambda t: round((step(t) + random.normal(0, 0.02)) / 0.04) * 0.04)
    assert energy(noisy, PHASES, SENSOR, FULL).net_mj == pytest.approx(60, rel=0.01)


@pytest.mark.parametrize("period_s", [0.2, 0.25, 1.0])
def test_repeated_readings_of_a_slow_sensor_do_not_count(period_s: float) -> None:
    slow = trace(lambda t: step(np.floor(t / period_s + 1e-6) * period_s))
    with pytest.raises(NotMeasuredError, match=r"renews its value only every \S+ s: \d+ values under load"):
        energy(slow, PHASES, SENSOR, FULL)
    few = dataclasses.replace(FULL, energy_min_samples=10)
    assert energy(slow, PHASES, SENSOR, few).net_mj == pytest.approx(60, rel=0.01)


def test_gaps_and_failures_are_refused() -> None:
    whole = trace(step)
    keep = [n for n, ns in enumerate(whole.ns) if not 15e9 < ns < 15.8e9]
    holed = dataclasses.replace(whole, ns=[whole.ns[n] for n in keep], values=[whole.values[n] for n in keep])
    policy = dataclasses.replace(FULL, energy_min_samples=90)
    with pytest.raises(NotMeasuredError, match=r"under load: no reading for 0.80 s \(at most 0.50 s\)"):
        energy(holed, PHASES, SENSOR, policy)
    with pytest.raises(NotMeasuredError, match=r"too many readings failed \(readings failed: 30 times EAGAIN\)"):
        energy(trace(step, EAGAIN=30), PHASES, SENSOR, FULL)
    short = dataclasses.replace(whole, ns=whole.ns[:300], values=whole.values[:300])
    with pytest.raises(NotMeasuredError, match=r"idle after the load: the readings go from 0.0 to 29.9 s"):
        energy(short, PHASES, SENSOR, FULL)


def test_the_total_is_not_counted_with_its_parts() -> None:
    jetson = PowerSensor("ina3221", "hwmon", "module", ("CPU", "VDD_IN", "SOC"))
    assert add_up(jetson) == ("VDD_IN",)  # also where the profile does not say so
    assert add_up(PowerSensor("x", "hwmon", "module", ("IN", "A", "B"), total="IN")) == ("IN",)
    assert add_up(PowerSensor("x", "hwmon", "rails", ("A", "B"))) == ("A", "B")


def test_integration_is_exact_for_what_is_linear_between_samples() -> None:
    times, watts = np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 2.0])
    assert integrate(times, watts, "power", 0.5, 2.0) == pytest.approx(0.75 + 2.0)
    assert integrate(times, watts, "energy", 0.5, 2.0) == pytest.approx(1.0)


def test_energy_is_measured_where_it_is_asked_for() -> None:
    policy = MeasurementPolicy()
    assert EnergyRun(BOARD, policy, asked=False).request is None
    assert "half a minute" in EnergyRun(BOARD, policy, asked=False).missing
    request = EnergyRun(BOARD, policy, asked=True).request
    assert request is not None
    assert request["sensors"] == [{"name": "ina226", "kind": "hwmon", "rails": [], "source": ""}]
    assert EnergyRun(BOARD, dataclasses.replace(policy, energy=True), asked=False).request is not None
    assert EnergyRun(BOARD, dataclasses.replace(policy, energy=False), asked=True).request is None
    assert "names none" in EnergyRun(DeviceProfile("x"), policy, asked=True).missing


# --- meters


def test_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    now = time.time()
    path.write_text(f"time,power_w\n{now - 60},1\n{now + 1},2.5\n{now + 2},3\n{now + 3},1")  # half of 12.5
    meter = CsvMeter(str(path))
    meter.start()
    assert meter.stop() == [(now + 1, 2.5), (now + 2, 3.0)]
    path.write_text("time,watts\n1,2\n")
    with pytest.raises(MeterError, match="name the columns time and power_w"):
        meter.stop()
    path.write_text(f"time,power_w\n{now + 1},OL\n")
    with pytest.raises(MeterError, match=r"not a time and a power: .*'OL'"):
        meter.stop()
    with pytest.raises(MeterError, match="no such file"):
        CsvMeter(str(tmp_path / "none.csv")).start()


def test_a_program(tmp_path: Path) -> None:
    program = tmp_path / "meter.py"
    program.write_text("import time\nfor n in range(1000): print(n + 0.5, flush=True); time.sleep(0.02)\n")
    meter = CommandMeter(f"{sys.executable} {program}")
    threads = threading.active_count()
    begin = time.time()
    meter.start()
    time.sleep(1)
    samples = meter.stop()
    assert [watts for _, watts in samples[:3]] == [0.5, 1.5, 2.5]
    assert all(begin <= moment <= time.time() for moment, _ in samples)
    assert threading.active_count() == threads  # its reader has ended
    broken = CommandMeter("false")
    broken.start()
    time.sleep(0.3)
    with pytest.raises(MeterError, match="false ended by itself with exit status 1"):
        broken.stop()
    with pytest.raises(MeterError, match="cannot run no-such-meter"):
        CommandMeter("no-such-meter").start()


def test_the_hosts_time_and_the_devices() -> None:
    clocks = [
        {"ns": 5e9, "wall": 1000.30, "monotonic": 70.30},  # 0.3 s on the way
        {"ns": 6e9, "wall": 1001.01, "monotonic": 71.01},
    ]
    ns, watts = device_times([(1001.01, 2.0), (1002.01, 3.0)], clocks)
    assert ns == [6_000_000_000, 7_000_000_000]
    assert watts == [2.0, 3.0]
    with pytest.raises(MeterError, match="clock was set"):
        device_times([], [*clocks, {"ns": 7e9, "wall": 2000.0, "monotonic": 72.0}])
    with pytest.raises(MeterError, match="not in the order of time"):
        device_times([(2.0, 1.0), (1.0, 1.0)], clocks)
