"""Sensors and the energy pass against power that is known at every moment, and every way for a sensor to fail."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.agent.device.energy import Sampler, choose_sensor, load, rest
from edgeprune.agent.device.sensors import Counter, SensorError, open_sensor
from edgeprune.measure.energy import NotMeasuredError, Trace, energy, plan
from edgeprune.records.measurement import Energy
from edgeprune.records.profile import MeasurementPolicy, PowerSensor
from edgeprune.testing.sysfs import Sysfs, sysfs_missing

TEN_HZ = MeasurementPolicy(energy_min_s=1.2, energy_min_samples=7, energy_settle_s=0.2, energy_rate_hz=10.0)
QUICK = MeasurementPolicy(energy_min_s=0.8, energy_min_samples=8, energy_settle_s=0.1, energy_rate_hz=20.0)
SENSOR = PowerSensor("ina226", "hwmon", "board")
RIPPLE = "0.02e6 * math.sin(40 * t)"  # real sensors are never still


@pytest.fixture(autouse=True)
def needs_fuse() -> None:
    if missing := sysfs_missing():
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


def measure(
    sysfs: Sysfs,
    sensor: PowerSensor = SENSOR,
    policy: MeasurementPolicy = QUICK,
    switch: Callable[[int], None] | None = None,
) -> tuple[Energy, float]:
    """The agent's sampler and the worker's phases in this process, and the host's arithmetic.

    The variable `on` is 1 under load. The second value is `t` at the record's first sample.
    """
    asked = plan([sensor], policy)
    turn = switch or (lambda on: sysfs.set(on=on))
    _, opened = choose_sensor(asked["sensors"], sysfs.root)
    sampler = Sampler(opened, asked["interval_s"])
    sampler.start()
    told: dict[str, Any] = {"before": rest(asked["settle_s"], asked["window_s"], asked["tail_s"])}
    turn(1)
    told["marks"] = load(
        lambda: time.sleep(0.01), asked["settle_s"], asked["window_s"], asked["tail_s"], asked["blocks"]
    )
    turn(0)
    told["after"] = rest(asked["settle_s"], asked["window_s"], asked["tail_s"])
    sampler.end()
    if sampler.fault:
        raise NotMeasuredError(sampler.fault)
    trace = Trace(sampler.times, sampler.values, opened.quantity, sampler.interval_s, sampler.failed)
    return energy(trace, told, sensor, policy), sampler.times[0] / 1e9 - sysfs.started


def hwmon(power: str) -> dict[str, str]:
    return {"sys/class/hwmon/hwmon1/name": "'ina226'", "sys/class/hwmon/hwmon1/power1_input": power}


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[Sysfs]:
    """2 W at rest, 5 W while inferences run."""
    with Sysfs(tmp_path / "root", hwmon(f"2e6 + 3e6 * on + {RIPPLE}"), on=0) as sysfs:
        yield sysfs


def test_a_step_of_power(stepped: Sysfs) -> None:
    found, _ = measure(stepped, policy=TEN_HZ)
    per_run = found.seconds / found.runs
    assert found.gross_mj == pytest.approx(5e3 * per_run, rel=0.01)
    assert found.net_mj == pytest.approx(3e3 * per_run, rel=0.01)
    assert found.gross_mj - found.net_mj == pytest.approx(found.idle_w * 1e3 * per_run)
    assert found.idle_w == pytest.approx(2.0, rel=0.01)
    assert found.net_lower_mj is not None
    assert found.net_upper_mj is not None
    assert found.net_lower_mj < found.net_mj < found.net_upper_mj < 1.05 * found.net_mj
    assert found.rate_hz == pytest.approx(10, rel=0.15)
    assert (found.sensor, found.scope, found.quantity, found.failed) == ("ina226", "board", "power", {})
    assert len(found.raw) > 30
    assert found.samples >= 7


def test_a_ramp_of_power(tmp_path: Path) -> None:
    """Power rises with time under load: the exact integral over the record's window is known."""
    with Sysfs(tmp_path / "root", hwmon(f"2e6 + (2e6 + 0.5e6 * t) * on + {RIPPLE}"), on=0) as sysfs:
        found, zero = measure(sysfs, policy=TEN_HZ)
    begin, end = found.windows["load"]
    exact = (4 + 0.5 * (zero + (begin + end) / 2)) * (end - begin)
    assert found.gross_mj == pytest.approx(exact / found.runs * 1e3, rel=0.01)
    assert found.net_mj == pytest.approx((exact - 2 * (end - begin)) / found.runs * 1e3, rel=0.01)


def test_a_counter_that_wraps(tmp_path: Path) -> None:
    """5 W and 2 W as a counter of microjoules that wraps several times."""
    zone = "sys/class/powercap/intel-rapl:0/"
    files = {
        zone + "name": "'package-0'",
        zone + "energy_uj": "int(base + (t - since) * (2e6 + 3e6 * on)) % 7000001",
        zone + "max_energy_range_uj": "7000001",
    }
    with Sysfs(tmp_path / "root", files, on=0, base=0.0, since=0.0) as sysfs:
        joules = {"base": 0.0, "since": 0.0, "on": 0}

        def switch(on: int) -> None:
            now = time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - sysfs.started
            joules["base"] += (now - joules["since"]) * (5e6 if joules["on"] else 2e6)
            joules.update(on=on, since=now)
            sysfs.set(**joules)

        found, _ = measure(sysfs, PowerSensor("rapl", "powercap", "soc", ("package-0",)), TEN_HZ, switch)
    per_run = found.seconds / found.runs
    assert found.quantity == "energy"
    assert found.raw[-1][1] > 7  # J: it wrapped
    assert found.gross_mj == pytest.approx(5e3 * per_run, rel=0.01)
    assert found.net_mj == pytest.approx(3e3 * per_run, rel=0.01)


def test_an_idle_that_changes_is_refused(tmp_path: Path) -> None:
    with (
        Sysfs(tmp_path / "root", hwmon(f"(2e6 + 0.2e6 * t) + 3e6 * on + {RIPPLE}"), on=0) as sysfs,
        pytest.raises(NotMeasuredError, match=r"ina226: idle power was .* at most 5%"),
    ):
        measure(sysfs)


def test_a_load_that_the_sensor_does_not_see_is_refused(tmp_path: Path) -> None:
    with (
        Sysfs(tmp_path / "root", hwmon("2e6 + 0.03e6 * math.sin(40 * t) - 0.1e6 * on"), on=0) as sysfs,
        pytest.raises(NotMeasuredError, match=r"under load cannot be told from (2|2\.\d+|1\.9\d*) W idle"),
    ):
        measure(sysfs)


@pytest.mark.parametrize(
    ("when_s", "change", "reason"),
    [
        (0.5, {"gone": "power1_input"}, r"the sensor has disappeared: every reading fails \(ENOENT"),
        (0.5, {"fail": "EAGAIN"}, r"the sensor has disappeared: every reading fails \(EAGAIN"),
        (0.5, {"stuck": 1, "on": 0, "stop_at": 1.0, "frozen": 1}, r"the sensor is stuck: 2\.\d+ W for .* s"),
        (1.5, {"stuck": 1, "stop_at": 1.0, "frozen": 1}, r"the sensor is stuck: 5\.\d+ W for .* s"),
    ],
)
def test_faults(tmp_path: Path, when_s: float, change: dict[str, Any], reason: str) -> None:
    """The sensor disappears, fails on, or gives one value for ever, at rest or under load."""
    with Sysfs(tmp_path / "root", hwmon(f"2e6 + 3e6 * (was if frozen else on) + {RIPPLE}"), on=0, frozen=0, was=0) as s:
        timer = threading.Timer(when_s, lambda: s.set(**{**change, "was": int(when_s > 1)}))
        timer.start()
        with pytest.raises(NotMeasuredError, match=reason):
            measure(s)
        timer.join()


def test_readings_that_fail_for_a_while(stepped: Sysfs) -> None:
    """One EAGAIN is counted and harmless; a second without readings is not."""
    timers = [
        threading.Timer(at, lambda fail=fail: stepped.set(fail=fail)) for at, fail in ((0.4, "EAGAIN"), (0.48, ""))
    ]
    for timer in timers:
        timer.start()
    found, _ = measure(stepped)
    assert set(found.failed) == {"EAGAIN"}
    assert 1 <= found.failed["EAGAIN"] <= 3
    assert found.net_mj == pytest.approx(3e3 * found.seconds / found.runs, rel=0.01)
    timers = [
        threading.Timer(at, lambda fail=fail: stepped.set(fail=fail)) for at, fail in ((0.3, "EAGAIN"), (0.8, ""))
    ]
    for timer in timers:
        timer.start()
    with pytest.raises(NotMeasuredError, match=r"idle before the load: .*readings failed: \d+ times EAGAIN"):
        measure(stepped)


def test_counters() -> None:
    counter = Counter(1000)
    assert [counter.add(value) for value in (900, 990, 10, 400)] == pytest.approx([0, 90e-6, 110e-6, 500e-6])
    with pytest.raises(SensorError, match="went back from 400 to 300 uJ: it was reset"):
        counter.add(300)
    endless = Counter()
    endless.add(5)
    with pytest.raises(SensorError, match="it was reset"):
        endless.add(4)


# --- what is read where


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def spec(kind: str, rails: list[str] = [], name: str = "x", source: str = "") -> dict[str, Any]:  # noqa: B006
    return {"kind": kind, "name": name, "rails": rails, "source": source}


def ina3221(chip: str) -> dict[str, str]:
    """in1 to in3 with label, mV and mA; the sum of shunt voltages has a label and no current."""
    files = {chip + "name": "ina3221", chip + "in7_label": "sum of shunt voltages", chip + "in7_input": "1"}
    for number, label, millivolt, milliampere in (
        (1, "VDD_IN", 5000, 1200),
        (2, "CPU", 5000, 500),
        (3, "SOC", 5000, 300),
    ):
        files[f"{chip}in{number}_label"] = label
        files[f"{chip}in{number}_input"] = str(millivolt)
        files[f"{chip}curr{number}_input"] = str(milliampere)
    return files


def test_the_two_layouts_of_ina3221(tmp_path: Path) -> None:
    root = put(tmp_path / "new", ina3221("sys/class/hwmon/hwmon2/"))
    assert open_sensor(spec("hwmon", ["VDD_IN"]), root).read() == [6.0]
    assert open_sensor(spec("hwmon", ["CPU", "SOC"]), root).read() == [2.5, 1.5]
    with pytest.raises(SensorError, match="no chip has the rails GPU; found are: CPU, SOC, VDD_IN"):
        open_sensor(spec("hwmon", ["GPU"]), root)
    old = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
    files = {old + "rail_name_0": "POM_5V_IN", old + "in_power0_input": "2500", old + "rail_name_1": "POM_5V_GPU"}
    root = put(tmp_path / "old", {**files, old + "in_power1_input": "700"})
    for kind in ("iio", "hwmon"):
        assert open_sensor(spec(kind, ["POM_5V_IN"]), root).read() == [2.5]
    assert open_sensor(spec("iio", ["POM_5V_GPU"]), root).read() == pytest.approx([0.7])


def test_chips_of_the_same_name_are_told_apart_by_their_path(tmp_path: Path) -> None:
    for number, watts in ((40, "1000000"), (41, "3000000")):
        chip = f"sys/devices/i2c-1/1-00{number}/hwmon/hwmon{number}/"
        put(tmp_path, {chip + "name": "ina226", chip + "power1_input": watts})
        (tmp_path / "sys/class/hwmon").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"sys/class/hwmon/hwmon{number}").symlink_to(tmp_path / chip)
    with pytest.raises(SensorError, match=r"2 chips \(say which by `source`"):
        open_sensor(spec("hwmon", name="ina226"), tmp_path)
    assert open_sensor(spec("hwmon", name="ina226", source="1-0041"), tmp_path).read() == [3.0]


def test_ina219_without_power_is_volt_times_ampere(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon0/"
    put(tmp_path, {chip + "name": "ina219", chip + "in1_input": "12000", chip + "curr1_input": "250"})
    assert open_sensor(spec("hwmon", name="ina219"), tmp_path).read() == [3.0]


def test_odpm(tmp_path: Path) -> None:
    first, second = "sys/bus/iio/devices/iio:device0/", "sys/bus/iio/devices/iio:device1/"
    text = "t=100\nCH0(T=100)[S4M_VDD_CPUCL0], {}\nCH1(T=100)[S10M_VDD_TPU], 900"
    put(tmp_path, {first + "energy_value": text.format(5_000_000), first + "enabled_rails": "CH0[S4M_VDD_CPUCL0]:CPU"})
    put(tmp_path, {second + "energy_value": "t=100\nCH3(T=100)[S2S_VDD_G3D], 7", second + "enabled_rails": "x"})
    sensor = open_sensor(spec("iio", ["S4M_VDD_CPUCL0", "S2S_VDD_G3D"]), tmp_path)
    put(tmp_path, {first + "energy_value": text.format(6_500_000)})
    assert (sensor.quantity, sensor.read()) == ("energy", [1.5, 0.0])
    put(tmp_path, {second + "energy_value": "t=200\nCH3(T=100)[OTHER], 7"})
    with pytest.raises(SensorError, match="a rail was switched off"):
        sensor.read()
    with pytest.raises(SensorError, match="no enabled rail CPU Big; enabled are: OTHER"):
        open_sensor(spec("iio", ["CPU Big"]), tmp_path)


def test_raspberry_pi_pmic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "vcgencmd"
    lines = (
        "    3V3_SYS_A current(1)=0.10000000A", "   VDD_CORE_A current(7)=2.00000000A",
        "    3V3_SYS_V volt(9)=3.30000000V", "   VDD_CORE_V volt(15)=0.80000000V", "     EXT5V_V volt(24)=5.10000000V",
    )  # fmt: skip
    tool.write_text("#!/bin/sh\n[ $1 = pmic_read_adc ] && cat <<X\n" + "\n".join(lines) + "\nX\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sensor = open_sensor(spec("vcgencmd", ["VDD_CORE", "3V3_SYS"]), tmp_path)
    assert sensor.read() == pytest.approx([1.6, 0.33])
    with pytest.raises(SensorError, match="does not tell EXT5V"):
        open_sensor(spec("vcgencmd", ["EXT5V"]), tmp_path)
    tool.write_text("#!/bin/sh\necho VCHI initialization failed; exit 255\n")
    with pytest.raises(OSError, match="vcgencmd"):
        sensor.read()


def test_battery(tmp_path: Path) -> None:
    supply = "sys/class/power_supply/battery/"
    put(tmp_path, {supply + "type": "Battery", supply + "status": "Discharging", supply + "current_now": "-500000"})
    put(tmp_path, {supply + "voltage_now": "4000000", "sys/class/power_supply/usb/type": "USB"})
    sensor = open_sensor(spec("battery"), tmp_path)
    assert sensor.read() == [2.0]
    assert sensor.least_interval_s == 1.0
    put(tmp_path, {supply + "status": "Charging"})
    with pytest.raises(SensorError, match="the battery is charging: unplug the charger"):
        sensor.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
def test_a_counter_that_only_root_may_read() -> None:
    zone = "sys/class/powercap/intel-rapl:0/"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        put(Path(folder), {zone + "name": "package-0", zone + "energy_uj": "5", zone + "max_energy_range_uj": "9"})
        (Path(folder) / zone / "energy_uj").chmod(0o400)
        os.seteuid(65534)
        try:
            with pytest.raises(SensorError, match=r"only root may read .*energy_uj; sudo chmod a\+r"):
                open_sensor(spec("powercap", ["package-0"]), Path(folder))
        finally:
            os.seteuid(0)


def test_no_sensor_says_what_is_wrong_with_each(tmp_path: Path) -> None:
    specs = [spec("hwmon", ["VDD_IN"], "ina3221"), spec("powercap", ["package-0"], "rapl"), spec("odd", name="z")]
    with pytest.raises(SensorError) as caught:
        choose_sensor(specs, tmp_path)
    assert str(caught.value) == (
        "ina3221: no chip has the rails VDD_IN; found are: none; rapl: no powercap zone package-0; found are: none; "
        "z: this agent reads no sensor of kind 'odd'"
    )
