"""This machine as a target: `--target local`. The agent runs in a process group of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import StorageError, TargetError, UsageError
from edgeprune.targets.base import Channel, Target
from edgeprune.targets.files import checked_name, file_sha256
from edgeprune.targets.output import collect
from edgeprune.targets.parse import query_options
from edgeprune.targets.process import ChildProcess

__all__ = ["LocalChannel", "LocalTarget"]

_SEND_S = 60.0
_PATIENCE_S = 2.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class LocalChannel(ChildProcess):
    """A child process with the deadlines of a channel."""

    def send(self, data: bytes, timeout_s: float = _SEND_S) -> None:
        """Write all of `data`; raises TargetError (LOST where the program has ended, TIMEOUT)."""
        super().send(data, timeout_s)

    def close(self, patience_s: float = _PATIENCE_S) -> None:
        """End of input; 2 s to end by itself, then the whole process group is killed. Never raises."""
        super().close(patience_s)


class LocalTarget:
    """This machine. `python` names another interpreter than the running one (with the runtime installed)."""

    def __init__(self, *, python: str | None = None) -> None:
        self.name = "local"
        self._python = python or sys.executable
        self._folder: Path | None = None
        self._channels: list[LocalChannel] = []

    @classmethod
    def from_text(cls, text: str, **options: Any) -> LocalTarget:
        """ "local", or "local://?python=/opt/edge/bin/python"; raises UsageError."""
        return cls(**_checked({**query_options(text, ("python",)), **options}))

    def __enter__(self) -> Target:
        if self._folder is not None:
            raise UsageError("local: this target is already open")
        self._folder = Path(tempfile.mkdtemp(prefix="edgeprune-"))
        return self

    def __exit__(self, *exc: object) -> None:
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    @property
    def folder(self) -> str:
        """A private temporary folder."""
        if self._folder is None:
            raise UsageError("local: enter the target first (with target: ...)")
        return str(self._folder)

    @property
    def python(self) -> str:
        """The interpreter of the agent."""
        return self._python

    @property
    def home(self) -> str:
        """`edgeprune` in $XDG_CACHE_HOME or ~/.cache; raises TargetError."""
        cache = os.environ.get("XDG_CACHE_HOME", "")
        folder = (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "edgeprune"
        try:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            found = folder.lstat()
            why = ""
            if not stat.S_ISDIR(found.st_mode):
                why = "it is not a folder" if not stat.S_ISLNK(found.st_mode) else "it is a link"
            elif found.st_uid != os.geteuid():
                why = "it belongs to someone else"
            elif found.st_mode & 0o022:
                why = "others may write to it"
            if why:
                raise TargetError(f"local: {folder} is not safe to use: {why}", hint="move it away", outcome="LOST")
            folder.chmod(0o700)
        except OSError as error:
            raise TargetError(
                f"local: cannot make {folder}: {error.strerror}",
                hint="set XDG_CACHE_HOME to a folder of yours",
                outcome="NO_SPACE" if error.errno in _FULL else "LOST",
            ) from error
        return str(folder)

    def upload(self, source: Path, name: str, folder: str | None = None) -> str:
        """Copy a file; raises TargetError (NO_SPACE), StorageError where the source cannot be read."""
        destination = Path(folder or self.folder) / checked_name(name)
        part = destination.with_name(destination.name + ".part")
        try:
            data = source.open("rb")
        except OSError as error:
            raise StorageError(f"cannot read {source}: {error.strerror}") from error
        try:
            part.unlink(missing_ok=True)
            with data, part.open("xb") as copy:  # made anew: what lies there is not followed
                shutil.copyfileobj(data, copy)
            if file_sha256(part) != file_sha256(source):
                part.unlink()
                raise TargetError(f"local: {source} changed while it was copied", outcome="LOST")
            part.replace(destination)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            outcome = "NO_SPACE" if error.errno in _FULL else "LOST"
            hint = "free some space, or set TMPDIR to a folder that has it" if outcome == "NO_SPACE" else None
            raise TargetError(
                f"local: cannot copy {source.name} to {destination.parent}: {error.strerror}",
                hint=hint,
                outcome=outcome,
            ) from error
        return str(destination)

    def start(self, argv: Sequence[str]) -> Channel:
        """Start a program in the folder; raises TargetError."""
        channel = LocalChannel(argv, self.name, folder=self.folder)
        self._channels.append(channel)
        return channel

    def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes]:
        """Run a short program in the folder; raises TargetError."""
        try:
            return collect(LocalChannel(argv, self.name, folder=self.folder), self.name, timeout_s)
        except TargetError as error:
            if error.outcome == "NO_RUNTIME":
                return 127, error.message.encode()
            raise


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in options:
        if name != "python":
            raise UsageError(f"local: {name!r} is not an option of this target", hint="options: python")
    return options
