"""The state a measurement runs in: load, temperatures, clocks, memory, and every sign of throttling."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .system import kib, numbers, read_table, read_text


def throttled_flags() -> "int | None":
    """Raspberry Pi firmware: bits 0 to 3 under-voltage, frequency capped, throttled, soft limit, now; 16 to 19 ever."""
    command = shutil.which("vcgencmd", path=os.environ.get("PATH", "") + ":/usr/bin:/opt/vc/bin")
    if command is None:
        return None
    try:
        answer = subprocess.check_output([command, "get_throttled"], stderr=subprocess.DEVNULL, timeout=5)
        return int(answer.decode().partition("=")[2], 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def cooling_states(root: Path) -> "dict[str, int]":
    """Processor cooling devices that the kernel's thermal governor uses now (0: none): its way to throttle."""
    states = {}
    for path in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind = read_text(path / "type")
        state = read_text(path / "cur_state")
        if "cpufreq" in kind.lower() and state.isdigit():
            states[kind + "/" + path.name] = int(state)
    return states


def conditions(root: Path) -> "dict[str, Any]":
    """Load, temperatures, clocks, memory, swap and throttle flags, as far as they can be read."""
    memory = read_table(root / "proc/meminfo")
    swap_total, swap_free = kib(memory, "SwapTotal"), kib(memory, "SwapFree")
    load = read_text(root / "proc/loadavg").split()[:3]
    throttles = numbers(root, "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    return {
        "load": [float(value) for value in load],
        "memory_available_bytes": kib(memory, "MemAvailable"),
        "swap_used_bytes": None if swap_total is None or swap_free is None else swap_total - swap_free,
        "temperature_c": {
            path + ":" + read_text((root / path).parent / "type"): value / 1000.0
            for path, value in numbers(root, "sys/class/thermal/thermal_zone*/temp").items()
        },
        "governor": sorted(
            {read_text(path) for path in root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_governor")}
        ),
        "frequency_khz": numbers(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq"),
        "throttle_count": sum(throttles.values()),
        "cooling": cooling_states(root),
        "throttled": throttled_flags(),
    }


def throttle_reason(before: "dict[str, Any]", after: "dict[str, Any]", cooling: "dict[str, int]") -> str:
    """Why the measurement must not count, or "". `cooling` holds the highest states seen while it ran."""
    flags = after["throttled"]
    if flags is not None:
        names = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
        risen = flags & ~(before["throttled"] or 0) & 0xF0000
        hit = [name for bit, name in names.items() if flags & (1 << bit) or risen & (1 << (bit + 16))]
        if hit:
            return "the firmware reports {} (get_throttled={:#x})".format(", ".join(hit), flags)
    active = sorted(name for name, state in cooling.items() if state > 0)
    return "the kernel slows the processor to cool it ({})".format(", ".join(active)) if active else ""


def out_of_memory_kills() -> "int | None":
    """How many processes the kernel has killed for want of memory since it started; None before Linux 4.13."""
    for line in read_text(Path("/proc/vmstat")).splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return None
