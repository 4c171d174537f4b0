"""Files on their way to a device: what they are called there, and whether they are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeprune.errors import UsageError

__all__ = ["checked_name", "file_sha256"]


def checked_name(name: str) -> str:
    """The name of one file, any but ".", ".." and one with a / or a NUL in it; raises UsageError."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise UsageError(f"{name!r} is not the name of a file", hint="give a name without a folder")
    return name


def file_sha256(path: Path, size: int | None = None) -> str:
    """Hex digest of a file, or of its first `size` bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = path.stat().st_size if size is None else size
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
