"""What this machine says of itself: cores, instruction set, memory, installed runtimes, sensors.

Read from /proc/cpuinfo, /proc/meminfo and sysfs where they exist (Linux); what nothing says is left out.
"""

from __future__ import annotations

import os
import platform
import struct
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeprune.records.profile import CoreCluster, PowerSensor, ThrottleSource

__all__ = ["core_name", "detect"]

# Arm's main ID register, "CPU part" in /proc/cpuinfo (Linux: arch/arm64/include/asm/cputype.h), implementer 0x41.
_ARM_PARTS = {
    0xB76: "ARM1176",
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
}
_NVIDIA_PARTS = {0x004: "Carmel"}  # implementer 0x4e, same header
_ARM, _NVIDIA = 0x41, 0x4E

# The x86-64 psABI's micro-architecture levels, in the flag names of /proc/cpuinfo (SSE3 is "pni", LZCNT is "abm").
_X86_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
)
# Of the flags, those that decide what a runtime's kernels can use.
_COMPUTE_FLAGS = {
    *("sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    *("avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "vfpv4", "asimd", "asimdhp", "fphp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
}
_RUNTIMES = ("onnxruntime", "ai-edge-litert", "tflite-runtime", "ncnn", "executorch", "tensorrt")
_POWER_CHIPS = {"ina219", "ina226", "ina260", "ina3221"}


def detect(root: Path = Path("/"), machine: str = "") -> dict[str, Any]:
    """Fields of a DeviceProfile, as far as the machine says them; `root` is where proc and sys are looked for."""
    blocks = _cpuinfo(_text(root / "proc/cpuinfo"))
    machine = machine or platform.machine()
    first = blocks[0] if blocks else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    found: dict[str, Any] = {
        "soc": _text(root / "proc/device-tree/model").rstrip("\0\n") or first.get("model name", ""),
        "cores": _cores(blocks, root),
        "isa": _isa(machine, flags),
        "features": tuple(sorted(flags & _COMPUTE_FLAGS)),
        "bits": struct.calcsize("P") * 8,
        "ram_bytes": _ram(_text(root / "proc/meminfo")),
        "runtimes": _runtimes(),
        "power_sensors": _power_sensors(root),
        "throttle_sources": _throttle_sources(root),
    }
    return {name: value for name, value in found.items() if value}


def core_name(cpu: str) -> str:
    """ "Cortex-A72" of the CPU part "0xd08", "" of an unknown one; any other text, an x86 model's name, as it is."""
    if not cpu.startswith("0x"):
        return cpu
    return {**_ARM_PARTS, **_NVIDIA_PARTS}.get(int(cpu, 16), "")


def _cpuinfo(text: str) -> list[dict[str, str]]:
    """One mapping per processor."""
    blocks = []
    for part in text.split("\n\n"):
        pairs = (line.partition(":") for line in part.splitlines())
        block = {key.strip(): value.strip() for key, _, value in pairs}
        if "processor" in block:
            blocks.append(block)
    return blocks


def _cores(blocks: list[dict[str, str]], root: Path) -> tuple[CoreCluster, ...]:
    if not blocks:
        count = os.cpu_count()
        return (CoreCluster(count, platform.processor() or platform.machine()),) if count else ()
    kinds = Counter((_core_name(block), _max_mhz(root, block["processor"])) for block in blocks)
    return tuple(CoreCluster(count, name, clock) for (name, clock), count in kinds.items())


def _core_name(block: dict[str, str]) -> str:
    if "CPU part" in block:
        part, implementer = int(block["CPU part"], 16), int(block.get("CPU implementer", "0"), 16)
        parts = {_ARM: _ARM_PARTS, _NVIDIA: _NVIDIA_PARTS}.get(implementer, {})
        return parts.get(part, f"implementer {implementer:#04x} part {part:#05x}")
    return block.get("model name") or block.get("Processor") or platform.machine()


def _max_mhz(root: Path, processor: str) -> float | None:
    khz = _text(root / f"sys/devices/system/cpu/cpu{processor}/cpufreq/cpuinfo_max_freq").strip()
    return int(khz) / 1000 if khz.isdecimal() else None


def _isa(machine: str, flags: set[str]) -> str:
    if machine in ("x86_64", "AMD64"):
        # Each level includes the ones below it.
        for index, (level, _) in enumerate(_X86_LEVELS):
            if all(needed <= flags for _, needed in _X86_LEVELS[index:]):
                return level
        return "x86-64"
    return {"arm64": "aarch64"}.get(machine, machine)


def _ram(meminfo: str) -> int | None:
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024  # "kB" there means KiB (Linux: Documentation/filesystems/proc.rst)
    return None


def _runtimes() -> dict[str, str]:
    versions = {name: _version(name) for name in _RUNTIMES}
    return {name: f"{name} {found} is installed" for name, found in versions.items() if found}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _power_sensors(root: Path) -> tuple[PowerSensor, ...]:
    sensors = []
    packages: list[str] = []
    for name in sorted(root.glob("sys/class/powercap/intel-rapl:*/name")):
        zone = name.parent.name
        if zone.count(":") == 1:  # intel-rapl:0 is a package, intel-rapl:0:0 a part of it
            label = _text(name).strip() or zone
            readable = os.access(name.parent / "energy_uj", os.R_OK)
            note = "" if readable else "energy_uj cannot be read by this user"
            if label.startswith("package"):  # of several sockets all: a process may run on any
                packages.append(label)
                sensors = [PowerSensor("rapl", "powercap", "soc", tuple(packages), note)]
            else:
                sensors.append(
                    PowerSensor(f"rapl {label}", "powercap", "board" if label == "psys" else "soc", (label,), note)
                )
    for name in sorted(root.glob("sys/class/hwmon/hwmon*/name")):
        chip = _text(name).strip()
        if chip in _POWER_CHIPS:
            labels = tuple(_text(label).strip() for label in sorted(name.parent.glob("in*_label")))
            sensors.append(PowerSensor(chip, "hwmon", "rails", labels))
    return tuple(sensors)


def _throttle_sources(root: Path) -> tuple[ThrottleSource, ...]:
    sources = []
    for name, pattern, note in (
        ("thermal_throttle", "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count", "counts since boot"),
        ("thermal_zone", "sys/class/thermal/thermal_zone*/temp", "in thousandths of a degree Celsius"),
    ):
        if any(root.glob(pattern)):
            sources.append(ThrottleSource(name, f"/{pattern}", note))
    return tuple(sources)


def _text(path: Path) -> str:
    """The file's text, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
