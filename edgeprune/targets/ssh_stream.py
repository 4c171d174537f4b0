"""A command over SSH, with deadlines of its own: paramiko waits without end where a server is frozen."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import paramiko

from edgeprune.errors import TargetError

__all__ = ["SshStream", "deadline", "translated"]

_DIAGNOSTICS = 8 * 1024
_STATUS_S = 30.0
_BLOCK = 1 << 16
_FAILURES = (TargetError, OSError, EOFError, paramiko.SSHException)


class SshStream:
    """One command on a connection."""

    def __init__(self, transport: paramiko.Transport, line: str, name: str, timeout_s: float) -> None:
        self._transport = transport
        self._name = name
        self._stderr = b""
        self._stderr_lock = threading.Lock()
        with deadline(transport, name, timeout_s), translated(name):
            self._channel = transport.open_session(timeout=timeout_s)
            self._channel.settimeout(timeout_s)
            self._channel.exec_command(line)

    def send(self, data: bytes, timeout_s: float) -> None:
        """Write all of `data`; raises TargetError (TIMEOUT, LOST)."""
        self._channel.settimeout(timeout_s)
        for start in range(0, len(data), _BLOCK):
            with deadline(self._transport, self._name, timeout_s), translated(self._name):
                self._channel.sendall(data[start : start + _BLOCK])

    def end_input(self) -> None:
        """Close the command's stdin."""
        with contextlib.suppress(*_FAILURES), deadline(self._transport, self._name, _STATUS_S):
            self._channel.shutdown_write()

    def receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, b"" at its end; raises TargetError (TIMEOUT, LOST)."""
        self._read_stderr()
        self._channel.settimeout(timeout_s)
        with translated(self._name):
            data = self._channel.recv(_BLOCK)
        if not data and self._broken():
            raise TargetError(f"{self._name}: the connection is lost", outcome="LOST")
        return data

    def status(self, timeout_s: float) -> int:
        """The exit status, -1 where a signal ended it; raises TargetError (TIMEOUT, LOST)."""
        if not self._channel.status_event.wait(timeout_s):
            raise TargetError(f"{self._name}: a program does not end", outcome="TIMEOUT")
        if self._broken():
            raise TargetError(f"{self._name}: the connection is lost", outcome="LOST")
        return self._channel.exit_status

    def close(self) -> None:
        """Give the channel up; the command may go on."""
        self._read_stderr()
        with contextlib.suppress(*_FAILURES), deadline(self._transport, self._name, _STATUS_S):
            self._channel.close()

    @property
    def diagnostics(self) -> str:
        """The end of stderr."""
        self._read_stderr()
        return self._stderr.decode("utf-8", "replace")

    def _broken(self) -> bool:
        """True where the channel has ended without a status because the connection has."""
        if self._channel.exit_status != -1 or not self._channel.status_event.is_set():
            return not self._transport.is_active() and self._channel.exit_status == -1
        self._transport.join(0.1)  # a signal ended the command, or the connection is about to be known as lost
        return not self._transport.is_active()

    def _read_stderr(self) -> None:
        with self._stderr_lock:
            while self._channel.recv_stderr_ready():
                data = self._channel.recv_stderr(_BLOCK)
                if not data:
                    return
                self._stderr = (self._stderr + data)[-_DIAGNOSTICS:]


@contextlib.contextmanager
def deadline(transport: paramiko.Transport, name: str, timeout_s: float) -> Iterator[None]:
    """Give the connection up where the body takes longer; it then raises TargetError (TIMEOUT)."""
    late = threading.Event()

    def give_up() -> None:
        late.set()
        transport.close()

    timer = threading.Timer(timeout_s + 1, give_up)  # after paramiko's own, which keep the connection
    timer.daemon = True
    timer.start()
    try:
        yield
    except _FAILURES as error:
        if not late.is_set():
            raise
        raise TargetError(
            f"{name}: no answer within {timeout_s:.3g} s", hint="is it on, and reachable?", outcome="TIMEOUT"
        ) from error
    finally:
        timer.cancel()


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """paramiko's and the socket's exceptions as TargetError."""
    try:
        yield
    except socket.gaierror as error:
        raise TargetError(
            f"{where}: no such host ({error.strerror})", hint="check the name, or use the address", outcome="LOST"
        ) from error
    except TimeoutError as error:
        raise TargetError(f"{where}: no answer in time", hint="is it on, and reachable?", outcome="TIMEOUT") from error
    except paramiko.AuthenticationException as error:
        raise TargetError(f"{where}: the device refuses the login: {error}", outcome="LOST") from error
    except (paramiko.SSHException, EOFError) as error:
        outcome = "TIMEOUT" if "timeout" in str(error).lower() or "timed out" in str(error).lower() else "LOST"
        raise TargetError(f"{where}: {str(error) or 'the connection was closed'}", outcome=outcome) from error
    except OSError as error:
        raise TargetError(
            f"{where}: {error.strerror or error}", hint="is it on, and does an SSH server run there?", outcome="LOST"
        ) from error
