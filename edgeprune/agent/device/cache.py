"""Artifacts that stay on the device, by content, up to a size: a slow link need not carry the same file twice."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from .frames import Frames, OutcomeError

BLOCK = 1 << 20


def digest_of(path: Path) -> str:
    """The sha256 of a file; "" where it is none, or a link."""
    try:
        descriptor = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return ""
    digest = hashlib.sha256()
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return ""
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def own_folder(folder: Path) -> None:
    """Made where it is not there; nobody else may have put a hand on it."""
    if not folder.is_dir() or folder.is_symlink():
        folder.mkdir(mode=0o700)
    seen = os.lstat(str(folder))
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise OutcomeError("LOST", "{} is not a folder that only this user may use; move it away".format(folder))


def make_room(folder: Path, wanted: int, limit: int) -> None:
    """Remove what was not used for longest until `wanted` bytes more fit the limit; what is no plain file goes too."""
    kept = []
    for path in folder.iterdir():
        seen = os.lstat(str(path))
        if stat.S_ISREG(seen.st_mode):
            kept.append((seen.st_mtime, seen.st_size, str(path)))
        elif not stat.S_ISDIR(seen.st_mode):
            path.unlink()  # a link: itself, not what it leads to
    used = sum(size for _, size, _ in kept)
    for _, size, name in sorted(kept):
        if used + wanted <= limit:
            return
        os.unlink(name)
        used -= size


def cached_task(task: "dict[str, Any]", out: Frames) -> "dict[str, Any]":  # noqa: ARG001
    """Whether the file is there as it should be (`found`); where not, whether it may be sent there (`keep`)."""
    folder = Path(task["folder"])
    path = folder / Path(task["name"]).name
    try:
        own_folder(folder)
        if digest_of(path) == task["sha256"]:
            os.utime(str(path))
            return {"found": True, "keep": True}
        if os.path.lexists(str(path)):
            path.unlink()
        make_room(folder, task["size"], task["limit"])
    except OSError as error:
        raise OutcomeError("LOST", "the cache {}: {}".format(folder, error.strerror or error)) from error
    return {"found": False, "keep": task["size"] <= task["limit"]}
