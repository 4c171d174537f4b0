"""A child process whose stdin and stdout are read and written with deadlines: the agent itself, or `adb shell`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from edgeprune.errors import TargetError

__all__ = ["ChildProcess"]

_DIAGNOSTICS = 8 * 1024


class ChildProcess:
    """A process in a session of its own; raises TargetError (NO_RUNTIME) where it cannot be started."""

    def __init__(
        self, argv: Sequence[str], name: str, *, folder: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = name
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise TargetError(f"{name}: cannot start {argv[0]}: {error}", outcome="NO_RUNTIME") from error
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
        self._stderr = b""
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data`; raises TargetError (LOST where the program has ended, TIMEOUT)."""
        stream = self._process.stdin
        rest = memoryview(data)
        try:
            while stream is not None and rest:
                if not select.select([], [stream], [], timeout_s)[1]:
                    raise TargetError(f"{self._name}: nothing was taken for {timeout_s:.3g} s", outcome="TIMEOUT")
                with contextlib.suppress(BlockingIOError):
                    rest = rest[os.write(stream.fileno(), rest) :]
        except (OSError, ValueError) as error:
            raise TargetError(f"{self._name}: the program does not read any more: {error}", outcome="LOST") from error

    def end_input(self) -> None:
        """Close the program's stdin."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, b"" at its end; raises TargetError (TIMEOUT, LOST)."""
        stream = self._process.stdout
        if stream is None or stream.closed:
            raise TargetError(f"{self._name}: the channel is closed", outcome="LOST")
        if not select.select([stream], [], [], timeout_s)[0]:
            raise TargetError(f"{self._name}: no answer within {timeout_s:.3g} s", outcome="TIMEOUT")
        return os.read(stream.fileno(), 1 << 16)

    def status(self, timeout_s: float) -> int:
        """The exit status, 128 + signal where one ended it; raises TargetError (TIMEOUT)."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TargetError(f"{self._name}: a program does not end", outcome="TIMEOUT") from None
        return code if code >= 0 else 128 - code

    def close(self, patience_s: float = 0.0) -> None:
        """End of input; `patience_s` to end by itself, then the whole process group is killed."""
        process = self._process
        self.end_input()
        end = time.monotonic() + patience_s
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, end - time.monotonic()))
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
