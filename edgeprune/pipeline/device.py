"""`edgeprune device probe` and `edgeprune device trust`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.errors import UsageError
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgeprune.records.profile import DeviceProfile
    from edgeprune.targets.base import Target

__all__ = ["HostKeyOffer", "probe", "trust"]


@dataclass(frozen=True, slots=True)
class HostKeyOffer:
    """The key that a host offers, beside what is known of it; a person is to compare the fingerprint."""

    host: str  # as it is listed: "board", "[board]:2222"
    algorithm: str
    fingerprint: str  # "SHA256:..."
    state: Literal["known", "unknown", "changed", "revoked"]
    known: tuple[str, ...]  # fingerprints listed for the host so far, with file and line
    known_hosts: Path  # where the key is written
    written: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "host": self.host,
            "algorithm": self.algorithm,
            "fingerprint": self.fingerprint,
            "state": self.state,
            "known": list(self.known),
            "known_hosts": str(self.known_hosts),
            "written": self.written,
        }


def probe(
    target: Target | str, profile: DeviceProfile | str | Path = "host", *, progress: Progress = SILENT, **options: Any
) -> Mapping[str, Any]:
    """What the device is, what it can run, its present conditions, and where it differs from the profile.

    Raises TargetError where it cannot be reached or is busy.
    """
    from edgeprune.measure.session import Session
    from edgeprune.records.profile import load_profile
    from edgeprune.records.profile_match import differences
    from edgeprune.targets.parse import open_target

    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    device = open_target(target, **options) if isinstance(target, str) else target
    with Session(device, kind, progress=progress) as session:
        seen = session.probe()
        runtime = kind.measurement.runtime
        return {
            "target": device.name,
            "profile": kind.name,
            "machine": dict(seen["machine"]),
            "runtimes": dict(session.runtimes),
            "conditions": dict(seen["conditions"]),
            "can_measure": "version" in session.runtimes.get(runtime, {}),
            "differences": list(differences(kind, seen["machine"])),
        }


def trust(target: str, confirm: Callable[[HostKeyOffer], bool], **options: Any) -> HostKeyOffer:
    """Ask the host for its key, show it to `confirm`, and list it where the answer is yes, in place of a changed one.

    Raises UsageError where the target is not reached over SSH or the key is revoked; TargetError where it is out of
    reach; StorageError where the known_hosts file cannot be written.
    """
    from edgeprune.targets import known_hosts
    from edgeprune.targets.parse import open_target

    device = open_target(target, **options)
    offered_key = getattr(device, "offered_key", None)
    if offered_key is None:
        raise UsageError(f"{device.name} has no host key to trust", hint="host keys belong to ssh:// targets")
    key, host = offered_key()
    state, about = known_hosts.state_of(device.listed_keys(), host, key)  # type: ignore[attr-defined]
    offer = HostKeyOffer(
        host=host,
        algorithm=key.algorithm,
        fingerprint=key.fingerprint,
        state=state,
        known=tuple(f"{entry.key.fingerprint} ({entry.path}:{entry.line})" for entry in about),
        known_hosts=device.known_hosts_file,  # type: ignore[attr-defined]
    )
    if state == "revoked":
        raise UsageError(f"{host} offers a key that is marked as revoked: {key.fingerprint}")
    if state == "known" or not confirm(offer):
        return offer
    known_hosts.add(offer.known_hosts, host, key)
    return HostKeyOffer(host, key.algorithm, key.fingerprint, state, offer.known, offer.known_hosts, written=True)
