"""The known_hosts format of OpenSSH (sshd(8)): which keys a host may have, and how a key is added.

Strict by construction: a key is either listed for the host, or refused with its fingerprint.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeprune.errors import HostKeyError, StorageError

__all__ = ["Entry", "HostKey", "State", "add", "check", "host_name", "read", "state_of"]

State = Literal["known", "unknown", "changed", "revoked"]


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public host key: its algorithm ("ssh-ed25519") and its wire form."""

    algorithm: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` prints it: "SHA256:" and base64 without padding."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a known_hosts file. `marker` is "", "@revoked" or "@cert-authority"."""

    patterns: tuple[str, ...]
    key: HostKey
    marker: str
    path: Path
    line: int

    def matches(self, name: str) -> bool:
        """True where the line is about the host; negated patterns win, hashed names are hashed to compare."""
        hit = False
        for pattern in self.patterns:
            if pattern.startswith("!"):
                if fnmatch.fnmatchcase(name.lower(), _escape(pattern[1:])):
                    return False
            elif pattern.startswith("|1|"):
                hit = hit or _hashed(pattern, name)
            else:
                hit = hit or fnmatch.fnmatchcase(name.lower(), _escape(pattern))
        return hit


def host_name(host: str, port: int) -> str:
    """The name under which a host is listed: "board", or "[board]:2222" where the port is not 22."""
    return host if port == 22 else f"[{host}]:{port}"


def read(paths: Iterable[Path]) -> tuple[Entry, ...]:
    """All entries of the files; a missing file has none. Raises StorageError where a file cannot be read."""
    entries: list[Entry] = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageError(f"cannot read the known hosts of {path}: {error.strerror}") from error
        entries.extend(
            entry for number, line in enumerate(lines, start=1) if (entry := _entry(line, path, number)) is not None
        )
    return tuple(entries)


def state_of(entries: Sequence[Entry], name: str, key: HostKey) -> tuple[State, tuple[Entry, ...]]:
    """What the entries say of a host's key, and the entries of that host."""
    about = tuple(entry for entry in entries if entry.marker != "@cert-authority" and entry.matches(name))
    if any(entry.marker == "@revoked" and entry.key == key for entry in about):
        return "revoked", about
    listed = tuple(entry for entry in about if not entry.marker)
    if any(entry.key == key for entry in listed):
        return "known", listed
    return ("changed" if listed else "unknown"), listed


def check(entries: Sequence[Entry], name: str, key: HostKey, *, target: str) -> None:
    """Pass where the key is known; else raise HostKeyError with the fingerprints and the next step.

    `target` is what the user would pass to `edgeprune device trust`.
    """
    state, about = state_of(entries, name, key)
    offered = f"{key.algorithm} {key.fingerprint}"
    trust = f"edgeprune device trust {target}"
    if state == "known":
        return
    if state == "unknown":
        raise HostKeyError(
            f"{name}: the host key is not known. The host offers {offered}",
            hint=f"compare the fingerprint with the device's own (ssh-keygen -lf on its host key), then: {trust}",
            outcome="LOST",
        )
    if state == "revoked":
        raise HostKeyError(f"{name}: the host offers a key that is marked as revoked: {offered}", outcome="LOST")
    known = "; ".join(f"{old.key.algorithm} {old.key.fingerprint} ({old.path}:{old.line})" for old in about)
    raise HostKeyError(
        f"{name}: THE HOST KEY HAS CHANGED. The host offers {offered}, known is {known}",
        hint="someone may be in between, or the device was set up anew. If you know that it was, "
        f"compare the fingerprints, then: {trust}",
        outcome="LOST",
    )


def add(path: Path, name: str, key: HostKey) -> None:
    """List the key for the host in the file, in place of the host's other keys there. Raises StorageError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve()  # a link to the file stays one
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [
            rest
            for number, line in enumerate(lines, start=1)
            if (rest := _without(line, path, number, name)) is not None
        ]
        kept.append(f"{name} {key.algorithm} {base64.b64encode(key.blob).decode()}")
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(kept) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    except OSError as error:
        raise StorageError(f"cannot write the known hosts to {path}: {error.strerror}") from error


def _without(line: str, path: Path, number: int, name: str) -> str | None:
    """The line without the host, None where nothing is left of it; other hosts of the line, and revocations, stay."""
    entry = _entry(line, path, number)
    if entry is None or entry.marker or not entry.matches(name):
        return line
    rest = [pattern for pattern in entry.patterns if not Entry((pattern,), entry.key, "", path, number).matches(name)]
    if not any(not pattern.startswith("!") for pattern in rest):
        return None
    return " ".join([",".join(rest), *line.split()[1:]])


def _entry(line: str, path: Path, number: int) -> Entry | None:
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if len(fields) < 3:
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    return Entry(tuple(fields[0].split(",")), HostKey(fields[1], blob), marker, path, number)


def _escape(pattern: str) -> str:
    """OpenSSH knows * and ? only; brackets stand for themselves ("[board]:2222")."""
    return pattern.lower().replace("[", "[[]")


def _hashed(pattern: str, name: str) -> bool:
    """|1|salt|hash with hash = HMAC-SHA1(salt, name)."""
    try:
        _, _, salt, digest = pattern.split("|")
        expected = base64.b64decode(digest)
        return hmac.compare_digest(expected, hmac.digest(base64.b64decode(salt), name.encode(), "sha1"))
    except (ValueError, binascii.Error):
        return False
