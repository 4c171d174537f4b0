"""What `edgeprune doctor` sees of the machine itself: who may measure, what disturbs it, what space is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeprune.export.environment import ENVIRONMENTS, folder_of
from edgeprune.export.environment_setup import kept_bytes
from edgeprune.measure.cost_cache import cache_folder
from edgeprune.pipeline.device_check import Finding

__all__ = ["machine", "space"]

_LITTLE_BYTES = 1_000_000_000
_NO_BYTES = 100_000_000


def machine(root: Path) -> tuple[Finding, ...]:
    """What stands between this user and sound figures; `root` is where /proc and /sys are."""
    return (_lock(root), *_governor(root), *_quota(root), *_memory(root), *_powercap(root))


def _lock(root: Path) -> Finding:
    """One measurement at a time: the file that says so must be ours to open."""
    from edgeprune.agent.device.lock import lock_path

    path = Path(lock_path())
    if not path.exists():
        if os.access(path.parent, os.W_OK):
            return Finding("lock", "ok", f"nobody measures here ({path})")
        fix = "EDGEPRUNE_LOCK=/a/file/of/yours, where nobody else measures on this machine"
        return Finding("lock", "failed", f"{path.parent} cannot be written: nothing can be measured here", fix)
    if not os.access(path, os.R_OK):
        return Finding("lock", "failed", f"{path} cannot be opened", f"look who owns it: ls -l {path}")
    if _is_held(root, path.stat().st_ino):
        return Finding("lock", "ok", "somebody measures here now; a run waits for its turn")
    return Finding("lock", "ok", f"nobody measures here ({path})")


def _is_held(root: Path, inode: int) -> bool:
    """By /proc/locks: taking the lock to see could make another fail (proc_locks(5): kind, ..., device:inode)."""
    held = [line.split() for line in _text(root / "proc/locks").splitlines()]
    return any(words[1:2] == ["FLOCK"] and words[5].endswith(f":{inode}") for words in held if len(words) > 5)


def _governor(root: Path) -> Iterator[Finding]:
    names = {_text(path) for path in root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_governor")}
    slow = sorted(names & {"powersave", "ondemand", "conservative", "schedutil"})
    if slow:
        fix = "steadier figures: echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
        yield Finding("governor", "warning", f"the processor's clock is not held ({', '.join(slow)})", fix)
    elif names:
        yield Finding("governor", "ok", ", ".join(sorted(names)))


def _quota(root: Path) -> Iterator[Finding]:
    """A container's share of the processor: the kernel stops what has used it up, in the middle of a measurement."""
    two = _text(root / "sys/fs/cgroup/cpu.max").split()
    one = [_text(root / f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period")]
    quota, period = two if len(two) == 2 else one
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return
    cpus = int(quota) / int(period)
    fix = "start the container without it: docker run --cpuset-cpus in place of --cpus"
    yield Finding(
        "cpu quota", "warning", f"this container may use {cpus:g} processors, and is stopped beyond that", fix
    )


def _memory(root: Path) -> Iterator[Finding]:
    """A container's limit, where it is below the machine's memory."""
    limits = [_text(root / name) for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")]
    known = [int(limit) for limit in limits if limit.isdecimal()]
    total = next((int(line.split()[1]) * 1024 for line in _text(root / "proc/meminfo").splitlines() if line), None)
    if known and total and min(known) < total:
        yield Finding("memory limit", "ok", f"this container may use {min(known) / 1e6:.0f} of {total / 1e6:.0f} MB")


def _powercap(root: Path) -> Iterator[Finding]:
    zones = sorted(root.glob("sys/class/powercap/intel-rapl:[0-9]*/energy_uj"))
    if not zones:
        return
    if all(os.access(zone, os.R_OK) for zone in zones):
        yield Finding("energy", "ok", "the processor's energy counters (RAPL) can be read")
    else:
        fix = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj   # until the next start"
        yield Finding("energy", "absent", "the processor's energy counters (RAPL) can only be read by root", fix)


def space() -> tuple[Finding, ...]:
    """Free space where edgeprune writes, and what its caches hold."""
    places = {"here": Path.cwd(), "temporary": Path(tempfile.gettempdir()), "cache": cache_folder().parent}
    found = [_free(name, _existing(path)) for name, path in places.items()]
    sizes = {folder: _size(folder) for folder in map(cache_folder, ("costs", "sensitivities"))}
    sizes |= {folder_of(kind): kept_bytes(kind) for kind in ENVIRONMENTS.values()}
    held = ", ".join(f"{size / 1e6:.1f} MB in {path}" for path, size in sizes.items() if size)
    return (*found, Finding("kept", "ok", held or "nothing is kept yet"))


def _free(name: str, path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    said = f"{free / 1e9:.1f} GB free in {path}"
    if not os.access(path, os.W_OK):
        return Finding(name, "failed" if name == "temporary" else "warning", f"{path} cannot be written to", "")
    if free >= _LITTLE_BYTES:
        return Finding(name, "ok", said)
    fix = "set TMPDIR to a folder that has more" if name == "temporary" else "free some space there"
    return Finding(name, "failed" if free < _NO_BYTES else "warning", f"only {said}", fix)


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above that is there."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _text(path: Path) -> str:
    """The file's text, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
