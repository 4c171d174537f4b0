"""What the device says of itself in proc and sys; `root` is where they are looked for."""

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any


def clock_ns() -> int:
    """CLOCK_MONOTONIC_RAW: no clock adjustment reaches it."""
    if hasattr(time, "clock_gettime_ns"):
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return int(time.clock_gettime(time.CLOCK_MONOTONIC_RAW) * 1e9)


def find_program(name: str) -> "str | None":
    """Its path, also where a small PATH leaves out the folders that it lies in."""
    folders = os.environ.get("PATH", "").split(":") + ["/usr/sbin", "/usr/bin", "/opt/vc/bin"]
    paths = [os.path.join(folder, name) for folder in folders if folder]
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def read_text(path: Path) -> str:
    """The file's text without its ends (NUL, newline); "" where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def read_table(path: Path) -> "dict[str, str]":
    """ "Name: value" lines, the first of each name (/proc/meminfo, /proc/cpuinfo, /proc/self/status)."""
    table = {}  # type: dict[str, str]
    for line in read_text(path).splitlines():
        name, colon, value = line.partition(":")
        if colon:
            table.setdefault(name.strip(), value.strip())
    return table


def kib(table: "dict[str, str]", name: str) -> "int | None":
    """Bytes of a "1234 kB" entry, or None."""
    number = table.get(name, "").partition(" ")[0]
    return int(number) * 1024 if number.isdigit() else None


def numbers(root: Path, pattern: str) -> "dict[str, int]":
    """All files that match and hold an integer, by their path below the root."""
    found = {}
    for path in sorted(root.glob(pattern)):
        text = read_text(path)
        if text.lstrip("-").isdigit():
            found[str(path.relative_to(root))] = int(text)
    return found


def boot_id(root: Path) -> str:
    """Another one after every start of the kernel."""
    return read_text(root / "proc/sys/kernel/random/boot_id")


def machine(root: Path) -> "dict[str, Any]":
    """The fingerprint of the device."""
    cpu = read_table(root / "proc/cpuinfo")
    memory = read_table(root / "proc/meminfo")
    return {
        "hostname": platform.node(),
        "system": platform.system(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": "-".join(platform.libc_ver()),
        "python": platform.python_version(),
        "boot_id": boot_id(root),
        "board": read_text(root / "proc/device-tree/model") or cpu.get("Model", "") or cpu.get("Hardware", ""),
        "cpu": cpu.get("model name", "") or cpu.get("CPU part", ""),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": kib(memory, "MemTotal"),
    }
