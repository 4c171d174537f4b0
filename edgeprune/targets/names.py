"""Names of files on a device."""

from __future__ import annotations

from edgeprune.errors import UsageError

__all__ = ["checked_name"]


def checked_name(name: str) -> str:
    """The name of one file, any but ".", ".." and one with a / or a NUL in it; raises UsageError."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise UsageError(f"{name!r} is not the name of a file", hint="give a name without a folder")
    return name
