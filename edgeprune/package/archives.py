"""Archives as bytes: tar, ar, zip and gzip of what is in memory, stored as it is, so that no compressor shows in them.

Sorted if nothing else is said, owned by root, every time the given one: the same files give the same bytes everywhere.
"""

from __future__ import annotations

import io
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath

from edgeprune.package.base import File

__all__ = ["ar_archive", "stored_gzip", "tar_archive", "zip_archive"]

_ZIP_BEGINS = 315532800  # 1980-01-01: a zip cannot say an earlier time
_BLOCK = 0xFFFF  # of deflate, where it stores


def tar_archive(
    files: Mapping[str, File], epoch: int, *, root: str = "", folders: bool = False, keep_order: bool = False
) -> bytes:
    """A POSIX (ustar) archive. `root` goes before every path ("./"); with `folders` every folder has its own member."""
    members = {root + path: file for path, file in files.items()}
    if folders:
        members |= {f"{folder}/": File(b"") for path in members for folder in _above(path)}
        if root:
            members[root] = File(b"")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in members if keep_order else sorted(members):
            archive.addfile(_member(path, members[path], epoch), io.BytesIO(members[path].data))
    return buffer.getvalue()


def ar_archive(files: Mapping[str, bytes], epoch: int) -> bytes:
    """An archive as `ar` and dpkg read it (deb(5)), in the order given; names have at most 15 characters."""
    parts = [b"!<arch>\n"]
    for name, data in files.items():
        header = f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n"
        parts += [header.encode(), data, b"\n" * (len(data) % 2)]
    return b"".join(parts)


def zip_archive(files: Mapping[str, File], epoch: int) -> bytes:
    """A zip file whose members are stored as they are; a time before 1980 becomes 1980."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            when = time.gmtime(max(epoch, _ZIP_BEGINS))[:6]
            info = zipfile.ZipInfo(path, when)
            info.create_system = 3  # Unix, also where this runs on another system
            info.external_attr = (0o100755 if files[path].executable else 0o100644) << 16
            archive.writestr(info, files[path].data)
    return buffer.getvalue()


def stored_gzip(data: bytes) -> bytes:
    """A gzip file (RFC 1952) of blocks that are not compressed (RFC 1951, 3.2.4), without a time."""
    blocks = range(0, max(len(data), 1), _BLOCK)
    parts = [b"\x1f\x8b\x08" + bytes(6) + b"\xff"]
    for start in blocks:
        part = data[start : start + _BLOCK]
        parts += [struct.pack("<BHH", start == blocks[-1], len(part), len(part) ^ 0xFFFF), part]
    parts.append(struct.pack("<II", zlib.crc32(data), len(data) % 2**32))
    return b"".join(parts)


def _above(path: str) -> list[str]:
    prefix = "./" if path.startswith("./") else ""
    return [f"{prefix}{folder}" for folder in PurePosixPath(path).parents if str(folder) != "."]


def _member(path: str, file: File, epoch: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path.rstrip("/") or "/")
    info.mtime, info.uname, info.gname = epoch, "root", "root"
    info.size, info.mode = len(file.data), 0o755 if file.executable else 0o644
    if path.endswith("/"):
        info.type, info.size, info.mode = tarfile.DIRTYPE, 0, 0o755
    return info
