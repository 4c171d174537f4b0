"""This machine as a target: `--target local`. The agent runs in a process group of its own."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import StorageError, TargetError, UsageError
from edgeprune.targets.base import Channel, Target
from edgeprune.targets.names import checked_name
from edgeprune.targets.output import collect
from edgeprune.targets.parse import query_options

__all__ = ["LocalChannel", "LocalTarget", "file_sha256"]

_DIAGNOSTICS = 8 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


class LocalChannel:
    """A child process in a session of its own."""

    def __init__(self, argv: Sequence[str], folder: str) -> None:
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise TargetError(f"local: cannot start {argv[0]}: {error}", outcome="NO_RUNTIME") from error
        self._stderr = b""
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()

    def send(self, data: bytes) -> None:
        """Write all of `data`; raises TargetError (LOST) where the program has ended."""
        stream = self._process.stdin
        try:
            while stream is not None and data:
                data = data[stream.write(data) or 0 :]
        except (OSError, ValueError) as error:
            raise TargetError(f"local: the program does not read any more: {error}", outcome="LOST") from error

    def receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, b"" at its end; raises TargetError (TIMEOUT, LOST)."""
        stream = self._process.stdout
        if stream is None or stream.closed:
            raise TargetError("local: the channel is closed", outcome="LOST")
        if not select.select([stream], [], [], timeout_s)[0]:
            raise TargetError(f"local: no answer within {timeout_s:.3g} s", outcome="TIMEOUT")
        return os.read(stream.fileno(), 1 << 16)

    def end_input(self) -> None:
        """Close the program's stdin."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def status(self, timeout_s: float) -> int:
        """The exit status, 128 + signal where one ended it; raises TargetError (TIMEOUT)."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TargetError("local: a program does not end", outcome="TIMEOUT") from None
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        """End of input; 2 s to end by itself, then the whole process group is killed."""
        process = self._process
        self.end_input()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # also what a program that ended by itself has left
        process.wait()
        self._drain.join(timeout=5)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    @property
    def diagnostics(self) -> str:
        """The end of stderr."""
        if self._process.poll() is not None:
            self._drain.join(timeout=1)
        return self._stderr.decode("utf-8", "replace")

    def _read_stderr(self) -> None:
        stream = self._process.stderr
        while stream is not None:
            try:
                data = os.read(stream.fileno(), 1 << 16)
            except (OSError, ValueError):
                return
            if not data:
                return
            self._stderr = (self._stderr + data)[-_DIAGNOSTICS:]


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
        channel = LocalChannel(argv, self.folder)
        self._channels.append(channel)
        return channel

    def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes]:
        """Run a short program in the folder; raises TargetError."""
        try:
            return collect(LocalChannel(argv, self.folder), self.name, timeout_s)
        except TargetError as error:
            if error.outcome == "NO_RUNTIME":
                return 127, error.message.encode()
            raise


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in options:
        if name != "python":
            raise UsageError(f"local: {name!r} is not an option of this target", hint="options: python")
    return options


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
