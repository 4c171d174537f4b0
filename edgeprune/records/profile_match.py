"""Is a device of the kind that a profile describes? Figures of another kind of device prove nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.records import host
from edgeprune.records.profile import DeviceProfile

__all__ = ["check_architecture", "differences"]

_RAM_SHARE = 0.5  # of the profile's RAM: firmware and GPU take their part of the nominal size

# Names of instruction sets, as profiles and `uname -m` write them; 32 and 64 bits are told apart by `bits`.
_FAMILIES = (
    ("Arm", re.compile(r"arm|aarch")),
    ("x86", re.compile(r"x86|amd64|i[3-6]86")),
    ("RISC-V", re.compile(r"riscv|rv(32|64)")),
    ("POWER", re.compile(r"ppc|power")),
    ("s390", re.compile(r"s390")),
    ("LoongArch", re.compile(r"loong")),
)


def check_architecture(profile: DeviceProfile, machine: Mapping[str, Any], target: str) -> None:
    """Refuse (UsageError) a device whose instruction set is of another family than the profile's.

    `machine` is what the agent says of the device. What either does not say is not held against it.
    """
    found = _architecture(profile, machine)
    if found is None:
        return
    here, wanted = found
    what = profile.title or profile.name
    raise UsageError(
        f"{target} is not a device of the profile {profile.name!r}: it is {here}, and {what} is {wanted}",
        hint="measure on the device itself with --target ssh://user@host, or name the profile of this one with "
        "--profile (`edgeprune device list`; `host` is the machine that edgeprune runs on)",
    )


def differences(profile: DeviceProfile, machine: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the device is not what the profile says, in words."""
    found = []
    if architecture := _architecture(profile, machine):
        found.append(f"architecture: {architecture[0]} here, {architecture[1]} in the profile")
    cores = {cluster.name for cluster in profile.cores}
    here = host.core_name(str(machine.get("cpu") or ""))
    if here and cores and not any(_alike(here, name) for name in cores):
        found.append(f"processor: {here} here, {' and '.join(sorted(cores))} in the profile")
    if profile.core_count is not None and machine.get("cpus") not in {None, profile.core_count}:
        found.append(f"processors: {machine['cpus']} here, {profile.core_count} in the profile")
    if profile.bits is not None and machine.get("bits") not in {None, profile.bits}:
        found.append(f"userland: {machine['bits']} bits here, {profile.bits} in the profile")
    memory = machine.get("memory_bytes")
    if profile.ram_bytes and memory and not _RAM_SHARE * profile.ram_bytes <= memory <= 1.02 * profile.ram_bytes:
        found.append(f"memory: {memory} bytes here, {profile.ram_bytes} in the profile")
    return tuple(found)


def _architecture(profile: DeviceProfile, machine: Mapping[str, Any]) -> tuple[str, str] | None:
    """What the device has and what the profile says, where they are of different families."""
    here, wanted = str(machine.get("arch") or ""), profile.isa
    families = _family(here), _family(wanted)
    return (here, wanted) if None not in families and families[0] != families[1] else None


def _family(name: str) -> str | None:
    return next((family for family, pattern in _FAMILIES if pattern.match(name.lower())), None)


def _alike(one: str, other: str) -> bool:
    """The same processor, as two sources write it: "Intel(R) N100" and "Intel N100 @ 3.4GHz"."""
    first, second = (re.sub(r"\((r|tm)\)|[^a-z0-9]", "", name.lower()) for name in (one, other))
    return first in second or second in first
