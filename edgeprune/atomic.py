"""Files that are either whole or not there: written beside, flushed to disk, renamed into place."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from edgeprune.errors import StorageError

__all__ = ["write_bytes", "write_text"]


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` as a whole; a reader, or a crash at any moment, sees the old content or the new. StorageError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                part.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        hint = "free space there, or choose another folder" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise StorageError(f"cannot write {path}: {error.strerror or error}", hint=hint) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of the text in UTF-8."""
    write_bytes(path, text.encode())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut; not every file system lets a folder be flushed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
