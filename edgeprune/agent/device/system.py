"""What the device says of itself in proc and sys; `root` is where they are looked for."""

import glob
import os
import sys
import time

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
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


def read_text(path: "Path | str") -> str:
    """The file's text without its ends (NUL, newline); "" where it cannot be read."""
    try:
        with open(str(path), "rb") as file:
            return file.read().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def read_table(path: "Path | str") -> "dict[str, str]":
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


def matching(root: "Path | str", pattern: str) -> "list[str]":
    """The paths below the root that match, in order."""
    return sorted(glob.glob(os.path.join(glob.escape(str(root)), pattern)))


def numbers(root: "Path | str", pattern: str) -> "dict[str, int]":
    """All files that match and hold an integer, by their path below the root."""
    found = {}
    for path in matching(root, pattern):
        text = read_text(path)
        if text.lstrip("-").isdigit():
            found[os.path.relpath(path, str(root))] = int(text)
    return found


def boot_id(root: "Path | str") -> str:
    """Another one after every start of the kernel."""
    return read_text(os.path.join(str(root), "proc/sys/kernel/random/boot_id"))


def libc() -> str:
    """ "glibc-2.36"; "" where the C library does not say."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").replace(" ", "-")
    except (ValueError, OSError):
        return ""  # musl does not know the name


def machine(root: "Path | str") -> "dict[str, Any]":
    """The fingerprint of the device."""
    name = os.uname()
    root = str(root)
    cpu = read_table(os.path.join(root, "proc/cpuinfo"))
    memory = read_table(os.path.join(root, "proc/meminfo"))
    return {
        "hostname": name.nodename,
        "system": name.sysname,
        "kernel": name.release,
        "arch": name.machine,
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": libc(),
        "python": sys.version.split()[0],
        "boot_id": boot_id(root),
        "board": read_text(os.path.join(root, "proc/device-tree/model"))
        or cpu.get("Model", "")
        or cpu.get("Hardware", ""),
        "cpu": cpu.get("model name", "") or cpu.get("CPU part", ""),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": kib(memory, "MemTotal"),
    }
