"""Power sensors of the device: found by the names of their rails, read as watts or as a counter of joules.

A reading raises OSError or ValueError where this one failed and the next may not, SensorError where none will count.
"""

import errno
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from .system import find_program, read_text


class SensorError(Exception):
    """Why the sensor cannot be used."""


class Sensor:
    """`read()` gives one number per rail: W where `quantity` is "power", J since the first reading for "energy"."""

    def __init__(self, quantity: str, rails: "list[str]", read: "Any", least_interval_s: float = 0.0) -> None:
        self.quantity = quantity
        self.rails = rails
        self.read = read
        self.least_interval_s = least_interval_s


class Counter:
    """Joules since the first reading of a counter that wraps at `span` (0: it never does); both in microjoules."""

    def __init__(self, span: int = 0) -> None:
        self.span = span
        self.last = None  # type: int | None
        self.total = 0

    def add(self, value: int) -> float:
        step = value - (value if self.last is None else self.last)
        if step < 0:
            step += self.span
            if not 0 <= step <= self.span // 2:  # it would have passed half of its range between two readings
                raise SensorError(
                    "the energy counter went back from {} to {} uJ: it was reset".format(self.last, value)
                )
        self.last = value
        self.total += step
        return self.total / 1e6


def number(path: Path) -> int:
    """The integer of a sysfs file; unlike `read_text` this lets errors through."""
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        return int(os.read(descriptor, 64))
    finally:
        os.close(descriptor)


def product(first: Path, second: Path) -> "Any":
    """Reads watts as mV times mA."""
    return lambda: number(first) * number(second) / 1e6


def scaled(path: Path, scale: float) -> "Any":
    """Reads one file."""
    return lambda: number(path) * scale


def chips(root: Path) -> "dict[Path, dict[str, Any]]":
    """By chip its rails, each with what reads its watts.

    hwmon: Linux, Documentation/hwmon/ina3221.rst (mV, mA) and ina2xx.rst (power1_input in uW; no labels: the chip's
    name). iio: NVIDIA Jetson Linux up to R32 (rail_name_N, in_powerN_input in mW), also below its i2c driver.
    """
    found = {}  # type: dict[Path, dict[str, Any]]
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        rails = found.setdefault(chip.resolve(), {})
        for label in sorted(chip.glob("in*_label")):
            channel = label.name[2 : -len("_label")]
            current = chip / ("curr" + channel + "_input")  # the "sum of shunt voltages" has none
            if current.exists():
                rails[read_text(label)] = product(chip / ("in" + channel + "_input"), current)
        name = read_text(chip / "name")
        if not rails and name.startswith("ina"):
            if (chip / "power1_input").exists():
                rails[name] = scaled(chip / "power1_input", 1e-6)
            elif (chip / "curr1_input").exists():
                rails[name] = product(chip / "in1_input", chip / "curr1_input")
    for pattern in ("sys/bus/iio/devices/iio:device*", "sys/bus/i2c/drivers/ina3221x/*/iio:device*"):
        for chip in sorted(root.glob(pattern)):
            rails = found.setdefault(chip.resolve(), {})
            for label in chip.glob("rail_name_*"):
                power = chip / ("in_power" + label.name[len("rail_name_") :] + "_input")
                if power.exists():
                    rails[read_text(label)] = scaled(power, 1e-3)
    return {chip: rails for chip, rails in found.items() if rails}


def open_chip(spec: "dict[str, Any]", root: Path) -> Sensor:
    """hwmon and the older iio layout: the one chip that has all of the wanted rails."""
    known = chips(root)
    wanted = spec["rails"] or [spec["name"]]
    fitting = [path for path, rails in known.items() if set(wanted) <= set(rails) and spec["source"] in str(path)]
    if len(fitting) != 1:
        names = "; ".join(sorted(", ".join(sorted(rails)) for rails in known.values())) or "none"
        how = (
            "no chip has"
            if not fitting
            else "{} chips (say which by `source`, a part of its path) have".format(len(fitting))
        )
        raise SensorError("{} the rails {}; found are: {}".format(how, ", ".join(wanted), names))
    readers = [known[fitting[0]][name] for name in wanted]
    interval = read_text(fitting[0] / "update_interval")  # ms (Linux, Documentation/hwmon/sysfs-interface.rst)
    interval_s = int(interval) / 1e3 if interval.isdigit() else 0.0
    return Sensor("power", wanted, lambda: [read() for read in readers], interval_s)


def open_powercap(spec: "dict[str, Any]", root: Path) -> Sensor:
    """RAPL: energy_uj wraps at max_energy_range_uj (Linux, Documentation/power/powercap/powercap.rst)."""
    zones = {read_text(zone / "name"): zone for zone in sorted(root.glob("sys/class/powercap/intel-rapl:*"))}
    absent = [name for name in spec["rails"] if name not in zones]
    if absent or not spec["rails"]:
        raise SensorError("no powercap zone {}; found are: {}".format(", ".join(absent), ", ".join(zones) or "none"))
    counters = [
        (zones[name] / "energy_uj", Counter(number(zones[name] / "max_energy_range_uj"))) for name in spec["rails"]
    ]
    return Sensor("energy", spec["rails"], lambda: [counter.add(number(path)) for path, counter in counters])


def open_odpm(spec: "dict[str, Any]", root: Path) -> Sensor:
    """Android's on-device power monitor: energy_value has lines "CH3(T=ms)[RAIL], uJ" of the enabled rails."""
    files = [path / "energy_value" for path in sorted(root.glob("sys/bus/iio/devices/iio:device*"))]
    files = [path for path in files if (path.parent / "enabled_rails").exists()]
    counters = {name: Counter() for name in spec["rails"]}

    def values() -> "dict[str, int]":
        text = "".join(path.read_text() for path in files)
        return {rail: int(energy) for rail, energy in re.findall(r"^CH\d+\(T=\d+\)\[(.+?)\], (\d+)$", text, re.M)}

    found = values()
    absent = [name for name in spec["rails"] if name not in found]
    if absent or not counters:
        raise SensorError(
            "no enabled rail {}; enabled are: {}".format(", ".join(absent), ", ".join(sorted(found)) or "none")
        )

    def read() -> "list[float]":
        now = values()
        if not set(counters) <= set(now):
            raise SensorError("a rail was switched off: enabled are {}".format(", ".join(sorted(now))))
        return [counters[name].add(now[name]) for name in counters]

    return Sensor("energy", list(counters), read)


def open_iio(spec: "dict[str, Any]", root: Path) -> Sensor:
    """Android's monitor or a Jetson's chip."""
    odpm = any((path / "energy_value").exists() for path in root.glob("sys/bus/iio/devices/iio:device*"))
    return open_odpm(spec, root) if odpm else open_chip(spec, root)


def open_vcgencmd(spec: "dict[str, Any]", root: Path) -> Sensor:  # noqa: ARG001
    """Raspberry Pi 5: lines "VDD_CORE_A current(7)=1.2A" and "VDD_CORE_V volt(15)=0.8V", one pair for each rail."""
    command = find_program("vcgencmd")
    if command is None:
        raise SensorError("vcgencmd is not there: install libraspberrypi-bin or raspi-utils")

    def rails() -> "dict[str, float]":
        try:
            told = subprocess.check_output([command, "pmic_read_adc"], stderr=subprocess.STDOUT, timeout=5).decode()
        except subprocess.SubprocessError as error:
            raise OSError(errno.EIO, "vcgencmd pmic_read_adc: {}".format(error)) from error
        ampere = dict(re.findall(r"(\S+)_A current\(\d+\)=(-?[0-9.]+)A", told))
        volt = dict(re.findall(r"(\S+)_V volt\(\d+\)=(-?[0-9.]+)V", told))
        return {name: float(ampere[name]) * float(volt[name]) for name in ampere if name in volt}

    found = rails()
    wanted = spec["rails"] or sorted(found)
    absent = [name for name in wanted if name not in found]
    if absent or not wanted:
        raise SensorError("pmic_read_adc does not tell {}; it tells {}".format(", ".join(absent), ", ".join(found)))

    def read() -> "list[float]":
        now = rails()
        if not set(wanted) <= set(now):
            raise ValueError("pmic_read_adc told {} of {} rails".format(len(now), len(wanted)))
        return [now[name] for name in wanted]

    return Sensor("power", wanted, read)


def open_battery(spec: "dict[str, Any]", root: Path) -> Sensor:
    """current_now (uA) times voltage_now (uV), while it discharges (Linux, sysfs-class-power). Slow: once a second."""
    supplies = [
        path
        for path in sorted(root.glob("sys/class/power_supply/*"))
        if read_text(path / "type") == "Battery" and (path / "current_now").exists() and spec["source"] in path.name
    ]
    if len(supplies) != 1:
        names = ", ".join(path.name for path in supplies) or "none"
        raise SensorError("there is to be one battery that tells its current, found: {}".format(names))
    battery = supplies[0]

    def read() -> "list[float]":
        state = read_text(battery / "status")
        if state != "Discharging":  # the sign of current_now differs between drivers
            raise SensorError("the battery is {}: unplug the charger".format(state.lower() or "in no known state"))
        return [abs(number(battery / "current_now")) * number(battery / "voltage_now") / 1e12]

    return Sensor("power", [battery.name], read, 1.0)


KINDS = {
    "hwmon": open_chip,
    "iio": open_iio,
    "powercap": open_powercap,
    "vcgencmd": open_vcgencmd,
    "battery": open_battery,
}


def open_sensor(spec: "dict[str, Any]", root: Path) -> Sensor:
    """The sensor that the profile describes (name, kind, rails to add up, source); raises SensorError."""
    if spec["kind"] not in KINDS:
        raise SensorError("this agent reads no sensor of kind {!r}".format(spec["kind"]))
    try:
        sensor = KINDS[spec["kind"]](spec, root)
        sensor.read()
    except PermissionError as error:
        how = "only root may read {}; sudo chmod a+r it, or be in the group that may"
        raise SensorError(how.format(error.filename or spec["name"])) from error
    except (OSError, ValueError) as error:
        raise SensorError("it cannot be read: {}".format(error)) from error
    return sensor
