"""The state a measurement runs in: load, temperatures, clocks, memory, and every sign of throttling."""

import os
import time

from .process import output_of
from .system import find_program, kib, matching, numbers, read_table, read_text

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

FLAGS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
SLOWING = ("cpufreq", "processor", "powerclamp")  # types of cooling devices that slow the processor
PROCESSOR = ("cpu", "soc", "pkg", "package", "core")  # in the types of thermal zones
POLL_S = 2.0
CLOCK = "sys/devices/system/cpu/cpufreq/policy*/{}"


def told_by(command: str, argument: str) -> str:
    """What a vendor's tool prints; "" where it is not there or fails."""
    path = find_program(command)
    return "" if path is None else output_of([path, argument], 5)


def throttled_flags() -> "int | None":
    """Raspberry Pi firmware: bits 0 to 3 under-voltage, frequency capped, throttled, soft limit, now; 16 to 19 ever."""
    try:
        return int(told_by("vcgencmd", "get_throttled").partition("=")[2], 16)
    except ValueError:
        return None


def cooling_states(root: "Path | str") -> "dict[str, int]":
    """Processor cooling devices that the kernel's thermal governor uses now (0: none): its way to throttle."""
    states = {}
    for path in matching(root, "sys/class/thermal/cooling_device*"):
        kind = read_text(path + "/type")
        state = read_text(path + "/cur_state")
        if any(name in kind.lower() for name in SLOWING) and state.isdigit():
            states[kind + "/" + os.path.basename(path)] = int(state)
    return states


def temperatures(root: "Path | str") -> "dict[str, float]":
    """Degrees Celsius by thermal zone and its type; what is below absolute zero is a sensor that is off."""
    return {
        path + ":" + read_text(os.path.join(str(root), os.path.dirname(path), "type")): value / 1000.0
        for path, value in numbers(root, "sys/class/thermal/thermal_zone*/temp").items()
        if value > -273150
    }


def hottest(root: "Path | str") -> "float | None":
    """Of the zones of the processor, else of all; None where there is none."""
    zones = temperatures(root)
    chosen = [
        value for name, value in zones.items() if any(word in name.rpartition(":")[2].lower() for word in PROCESSOR)
    ]
    return max(chosen or zones.values()) if zones else None


def conditions(root: "Path | str") -> "dict[str, Any]":
    """Load, temperatures, clocks, memory, swap, power mode and throttle flags, as far as they can be read."""
    memory = read_table(os.path.join(str(root), "proc/meminfo"))
    swap_total, swap_free = kib(memory, "SwapTotal"), kib(memory, "SwapFree")
    load = read_text(os.path.join(str(root), "proc/loadavg")).split()[:3]
    throttles = numbers(root, "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    return {
        "load": [float(value) for value in load],
        "memory_available_bytes": kib(memory, "MemAvailable"),
        "swap_used_bytes": None if swap_total is None or swap_free is None else swap_total - swap_free,
        "temperature_c": temperatures(root),
        "governor": sorted(
            {read_text(path) for path in matching(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_governor")}
        ),
        "frequency_khz": numbers(root, CLOCK.format("scaling_cur_freq")),
        "frequency_cap_khz": numbers(root, CLOCK.format("scaling_max_freq")),
        "frequency_max_khz": numbers(root, CLOCK.format("cpuinfo_max_freq")),
        "throttle_count": sum(throttles.values()),
        "over_current": numbers(root, "sys/class/hwmon/hwmon*/oc*_event_cnt"),
        "power_mode": " ".join(told_by("nvpmodel", "-q").split()),
        "cooling": cooling_states(root),
        "throttled": throttled_flags(),
    }


class Signs:
    """What looks at the device while it works show: the worst of each sign of throttling."""

    def __init__(self, root: "Path | str", before: "dict[str, Any]") -> None:
        self.root = root
        self.before = before
        self.cooling = {}  # type: dict[str, int]
        self.flags = 0
        self.caps = dict(before["frequency_cap_khz"])
        self.hottest = hottest(root)
        self.clock_share = None  # type: float | None

    def look(self, loaded: bool = False) -> None:
        """To be called now and then; `loaded` while inferences run all the time."""
        for name, state in cooling_states(self.root).items():
            self.cooling[name] = max(state, self.cooling.get(name, 0))
        self.flags |= (throttled_flags() or 0) & 0xF
        for name, cap in numbers(self.root, CLOCK.format("scaling_max_freq")).items():
            self.caps[name] = min(cap, self.caps.get(name, cap))
        heat = hottest(self.root)
        if heat is not None:
            self.hottest = max(heat, heat if self.hottest is None else self.hottest)
        most = self.before["frequency_max_khz"]
        shares = [
            clock / most[path.replace("scaling_cur_freq", "cpuinfo_max_freq")]
            for path, clock in numbers(self.root, CLOCK.format("scaling_cur_freq")).items()
            if most.get(path.replace("scaling_cur_freq", "cpuinfo_max_freq"))
        ]
        if loaded and shares:  # of the fastest cluster: the others may be idle
            self.clock_share = min(max(shares), 1.0 if self.clock_share is None else self.clock_share)

    def reason(self, after: "dict[str, Any]") -> str:
        """Why what was measured between must not count, or ""."""
        self.look()
        flags = after["throttled"]
        worst = dict(after, throttled=None if flags is None else flags | self.flags, frequency_cap_khz=self.caps)
        return throttle_reason(self.before, worst, self.cooling)

    def during(self) -> "dict[str, Any]":
        """For the record."""
        return {"hottest_c": self.hottest, "clock_share": self.clock_share}


def throttle_reason(before: "dict[str, Any]", after: "dict[str, Any]", cooling: "dict[str, int]") -> str:
    """Why the measurement must not count, or "". `cooling` holds the highest states seen while it ran.

    Linux: Documentation/admin-guide/pm/cpufreq.rst (scaling_max_freq follows thermal limits); NVIDIA Jetson Linux
    Developer Guide, "Platform Power and Performance" (oc*_event_cnt: over-current or under-voltage throttling).
    """
    flags = after["throttled"]
    if flags is not None:
        risen = flags & ~(before["throttled"] or 0) & 0xF0000
        hit = [name for bit, name in FLAGS.items() if flags & (1 << bit) or risen & (1 << (bit + 16))]
        if hit:
            return "the firmware reports {} (get_throttled={:#x})".format(", ".join(hit), flags)
    active = sorted(name for name, state in cooling.items() if state > 0)
    if active:
        return "the kernel slows the processor to cool it ({})".format(", ".join(active))
    if after.get("throttle_count", 0) > before.get("throttle_count", 0):
        return "the processor throttled for heat (core_throttle_count rose)"
    caps = before.get("frequency_cap_khz", {})
    lower = [
        "{} from {} to {} kHz".format(n, caps[n], k)
        for n, k in after.get("frequency_cap_khz", {}).items()
        if k < caps.get(n, k)
    ]
    if lower:
        return "the highest clock allowed fell: {}".format(", ".join(sorted(lower)))
    events = before.get("over_current", {})
    if any(count > events.get(name, count) for name, count in after.get("over_current", {}).items()):
        return "the module throttled for over-current or under-voltage (oc*_event_cnt rose)"
    if after.get("power_mode", "") != before.get("power_mode", ""):
        return "the power mode changed from {!r} to {!r}".format(before.get("power_mode"), after.get("power_mode"))
    return ""


def wait_until_cool(root: "Path | str", below_c: "float | None", longest_s: float, beat: "Any") -> str:
    """Wait until the processor is no hotter than `below_c`; what is wrong where it is not so in time, else "".

    `beat(stage)` is called all the while.
    """
    end = time.monotonic() + longest_s
    while below_c is not None:
        heat = hottest(root)
        if heat is None:
            return "no thermal zone tells whether the processor is below {:g} C".format(below_c)
        if heat <= below_c:
            return ""
        left = end - time.monotonic()
        if left <= 0:
            return "it was {:.1f} C hot at the start, not below {:g} C, after {:g} s".format(heat, below_c, longest_s)
        beat("cooling to {:g} C (now {:.1f} C)".format(below_c, heat))
        time.sleep(min(POLL_S, left))
    return ""


def out_of_memory_kills() -> "int | None":
    """How many processes the kernel has killed for want of memory since it started; None before Linux 4.13."""
    for line in read_text("/proc/vmstat").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return None
