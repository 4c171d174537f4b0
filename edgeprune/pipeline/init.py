"""Beginning a project: a folder with a task and a project file, empty or with an example that works."""

from __future__ import annotations

import errno
from importlib.resources import files
from pathlib import Path

from edgeprune import atomic
from edgeprune.errors import StorageError, UsageError

__all__ = ["examples", "init"]

_EXAMPLES = files("edgeprune") / "examples"
_SKELETON = "skeleton"


def examples() -> tuple[str, ...]:
    """The names of the examples that `init` can write."""
    return tuple(sorted(f.name for f in _EXAMPLES.iterdir() if f.is_dir() and f.name not in (_SKELETON, "__pycache__")))


def init(folder: Path | str, *, example: str | None = None) -> tuple[Path, ...]:
    """Write a project into `folder` (made where it does not exist) and return its files.

    Nothing is overwritten: UsageError where one of the files exists, or for an unknown example; StorageError where
    the folder cannot be written.
    """
    folder = Path(folder)
    if example is not None and example not in examples():
        raise UsageError(f"there is no example {example!r}", hint=f"examples: {', '.join(examples())}")
    sources = sorted((f for f in (_EXAMPLES / (example or _SKELETON)).iterdir() if f.is_file()), key=lambda f: f.name)
    targets = [folder / source.name for source in sources]
    for target in targets:
        if target.exists():
            raise UsageError(f"{target} exists already", hint="name another folder, or remove the file")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise UsageError(f"{folder} is not a folder", hint="name another folder") from error
        hint = "free space there, or name another folder"
        raise StorageError(f"{folder} cannot be written: {error.strerror}", hint=hint) from error
    try:
        for source, target in zip(sources, targets, strict=True):
            atomic.write_text(target, source.read_text(encoding="utf-8"))
    except BaseException:
        # All or nothing: half a project would stand in the way of the next attempt.
        for target in targets:
            target.unlink(missing_ok=True)
        if made:
            folder.rmdir()
        raise
    return tuple(targets)
