"""A device over SSH: `--target ssh://pi@board`. Keys or agent only; unknown and changed host keys are refused.

~/.ssh/config is honoured: HostName, Port, User, IdentityFile, IdentitiesOnly, UserKnownHostsFile, HostKeyAlias,
ProxyJump, ProxyCommand. Files travel through `cat`, so that a device without an SFTP server will do.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import paramiko

from edgeprune.errors import CannotMeasureError, StorageError, TargetError, UsageError
from edgeprune.targets import known_hosts, shell
from edgeprune.targets.base import Channel, Target
from edgeprune.targets.local import file_sha256
from edgeprune.targets.names import checked_name
from edgeprune.targets.output import collect
from edgeprune.targets.parse import query_options
from edgeprune.targets.route import Route, address, parse_address, proxy_socket, resolve

__all__ = ["SshChannel", "SshTarget"]

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its errors come as exceptions; do not print them too

_OPTIONS = ("config", "identity", "known_hosts", "python")
_CONNECT_S = 15.0
_COMMAND_S = 30.0
_KEEPALIVE_S = 15
_OUTPUT_LIMIT = 1 << 20
_DIAGNOSTICS = 8 * 1024


class SshTarget:
    """One device behind an SSH server.

    `identity`, `known_hosts` and `config` replace the usual files in ~/.ssh; `python` names the interpreter that has
    the runtime, where it is not the first of `python3` and `python` on the path.
    """

    def __init__(
        self,
        host: str,
        *,
        user: str | None = None,
        port: int | None = None,
        identity: str | Path | None = None,
        known_hosts: str | Path | None = None,
        config: str | Path | None = None,
        python: str | None = None,
        text: str | None = None,
    ) -> None:
        self._config = _read_config(config)
        self._identity = None if identity is None else Path(identity).expanduser()
        self._known_hosts = None if known_hosts is None else Path(known_hosts).expanduser()
        self._route = self._resolve(host, user, port)
        self.name = address(host, self._route)
        self._text = text or self.name
        self._interpreters = (python,) if python else ("python3", "python")
        self._python = ""
        self._folder: str | None = None
        self._transports: list[paramiko.Transport] = []
        self._channels: list[SshChannel] = []
        self._numbers = itertools.count(1)

    @classmethod
    def from_text(cls, text: str, **options: Any) -> SshTarget:
        """ "ssh://user@host:port?identity=...&python=..."; keyword options win. Raises UsageError."""
        host, user, port = parse_address(text)
        given = {**query_options(text, _OPTIONS), **options}
        for name in given:
            if name not in _OPTIONS:
                raise UsageError(f"{text}: {name!r} is not an option of ssh", hint=f"options: {', '.join(_OPTIONS)}")
        return cls(host, user=user, port=port, text=text, **given)

    def __enter__(self) -> Target:
        if self._folder is not None:
            raise UsageError(f"{self.name}: this target is already open")
        try:
            self._authenticated(self._route)
            self._open_folder()
        except BaseException:
            self._disconnect()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        if self._folder is not None and self._transports and self._transports[-1].is_active():
            with contextlib.suppress(CannotMeasureError):
                self._run(shell.command(shell.REMOVE, self._folder))
        self._folder = None
        self._disconnect()

    @property
    def folder(self) -> str:
        """A private folder from `mktemp -d` on the device."""
        if self._folder is None:
            raise UsageError(f"{self.name}: enter the target first (with target: ...)")
        return self._folder

    @property
    def python(self) -> str:
        """The interpreter of the agent, as an absolute path where the device's shell knows one."""
        return self._python

    @property
    def home(self) -> str:
        """`edgeprune` in $XDG_CACHE_HOME or ~/.cache on the device; raises TargetError."""
        code, output = self._run(shell.command(shell.HOME))
        answer = shell.answers(output)
        if code != 0 or not answer:
            said = output.decode("utf-8", "replace").strip()[-300:]
            outcome = "NO_SPACE" if "no space" in said.lower() else "LOST"
            hint = "set XDG_CACHE_HOME for that user to a folder of its own"
            raise TargetError(f"{self.name}: no folder to keep files in: {said}", hint=hint, outcome=outcome)
        return answer[0]

    @property
    def known_hosts_file(self) -> Path:
        """Where a newly trusted key belongs."""
        return self._route.known_hosts[0]

    def offered_key(self) -> tuple[known_hosts.HostKey, str]:
        """The key that the host offers now and the name it is listed under; nothing is sent but the handshake.

        The hosts that the way leads through must be trusted already. Raises TargetError.
        """
        try:
            return self._handshake(self._route), self._route.listed_as
        finally:
            self._disconnect()

    def listed_keys(self) -> tuple[known_hosts.Entry, ...]:
        """All entries of the known_hosts files."""
        return known_hosts.read(self._route.known_hosts)

    def upload(self, source: Path, name: str, folder: str | None = None) -> str:
        """Send a file; checked by sha256 and renamed on the device. Raises TargetError (NO_SPACE, LOST)."""
        destination = f"{folder or self.folder}/{checked_name(name)}"
        digest = file_sha256(source)
        line = shell.command(shell.RECEIVE, destination + ".part", destination, digest, self.python)
        try:
            with source.open("rb") as file:
                output = self._run(line, file, timeout_s=120)[1]
        except OSError as error:
            raise StorageError(f"cannot read {source}: {error.strerror}") from error
        except TargetError as error:
            raise self._upload_error(source, error.message) from error
        answer = shell.answers(output)
        if list(answer) != ["stored"]:
            raise self._upload_error(source, " ".join(answer) or output.decode("utf-8", "replace").strip()[-300:])
        return destination

    def start(self, argv: Sequence[str]) -> Channel:
        """Start a program in the folder; raises TargetError."""
        identity = f"{self.folder}/.pid-{next(self._numbers)}"
        line = shell.command(shell.START, self.folder, identity, *argv)
        channel = SshChannel(self._session(line), self.name, lambda: self._kill(identity))
        self._channels.append(channel)
        return channel

    def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int, bytes]:
        """Run a short program in the folder; raises TargetError."""
        channel = self.start(argv)
        self._channels.remove(channel)  # type: ignore[arg-type]
        return collect(channel, self.name, timeout_s)  # type: ignore[arg-type]

    # --- the way there

    def _resolve(self, host: str, user: str | None, port: int | None) -> Route:
        entry = self._config.lookup(host) if self._config else {}
        return resolve(host, user, port, entry, identity=self._identity, known_hosts=self._known_hosts)

    def _authenticated(self, route: Route, depth: int = 0) -> paramiko.Transport:
        key = self._handshake(route, depth)
        known_hosts.check(
            known_hosts.read(route.known_hosts),
            route.listed_as,
            key,
            target=shlex.quote(self._text if route == self._route else address(route.host, route)),
        )
        transport = self._transports[-1]
        with _translated(f"{route.user}@{route.address}:{route.port}"):
            _authenticate(transport, route)
        transport.set_keepalive(_KEEPALIVE_S)
        return transport

    def _handshake(self, route: Route, depth: int = 0) -> known_hosts.HostKey:
        where = f"{route.address}:{route.port}"
        with _translated(where):
            transport = paramiko.Transport(self._socket(route, depth))
            self._transports.append(transport)
            transport.banner_timeout = transport.handshake_timeout = _CONNECT_S
            transport.auth_timeout = _COMMAND_S
            listed = known_hosts.state_of(
                known_hosts.read(route.known_hosts), route.listed_as, known_hosts.HostKey("", b"")
            )[1]
            options = transport.get_security_options()
            known = {entry.key.algorithm for entry in listed}
            # As OpenSSH: ask first for a kind of key that is known, or a host with several kinds looks changed.
            options.key_types = tuple(sorted(options.key_types, key=lambda kind: _key_kind(kind) not in known))
            transport.start_client(timeout=_CONNECT_S)
            key = transport.get_remote_server_key()
        return known_hosts.HostKey(key.get_name(), key.asbytes())

    def _socket(self, route: Route, depth: int) -> Any:
        """A connected socket, or a channel through the jump hosts."""
        if depth > 8:
            raise TargetError(f"{route.address}: ProxyJump leads in a circle", hint="check ~/.ssh/config")
        if route.jumps:
            *before, last = route.jumps
            host, user, port = parse_address(last if "://" in last else f"ssh://{last}")
            jump = self._resolve(host, user, port)
            if before:
                jump = replace(jump, jumps=tuple(before), proxy_command=None)
            channel = self._authenticated(jump, depth + 1).open_channel(
                "direct-tcpip", (route.address, route.port), ("127.0.0.1", 0), timeout=_CONNECT_S
            )
            channel.settimeout(_CONNECT_S)
            return channel
        if route.proxy_command:
            return proxy_socket(route.proxy_command)
        connection = socket.create_connection((route.address, route.port), timeout=_CONNECT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # paramiko leaves Nagle on: 44 ms a call
        return connection

    def _disconnect(self) -> None:
        for transport in reversed(self._transports):
            transport.close()
        self._transports.clear()

    # --- commands

    def _open_folder(self) -> None:
        code, output = self._run(shell.command(shell.OPEN, *self._interpreters))
        answer = shell.answers(output)
        if code != 0 or not answer or not answer[0].startswith("/"):
            said = output.decode("utf-8", "replace").strip()[-300:]
            outcome = "NO_SPACE" if "no space" in said.lower() else "LOST"
            raise TargetError(f"{self.name}: cannot make a folder: {said}", hint="check TMPDIR there", outcome=outcome)
        self._folder = answer[0]
        if len(answer) < 2:
            raise self._no_python()
        self._python = answer[1]

    def _no_python(self) -> TargetError:
        with contextlib.suppress(CannotMeasureError):
            self._run(shell.command(shell.REMOVE, self.folder))
        self._folder = None
        return TargetError(
            f"{self.name}: there is no {' or '.join(self._interpreters)}",
            hint="install Python 3.6 or later, or name it: ssh://...?python=/path/to/python3",
            outcome="NO_RUNTIME",
        )

    def _session(self, line: str) -> paramiko.Channel:
        if not self._transports or not self._transports[-1].is_active():
            raise TargetError(f"{self.name}: the connection is lost", outcome="LOST")
        with _translated(self.name):
            channel = self._transports[-1].open_session(timeout=_COMMAND_S)
            channel.settimeout(_COMMAND_S)
            channel.exec_command(line)
        return channel

    def _run(self, line: str, stdin: BinaryIO | None = None, timeout_s: float = _COMMAND_S) -> tuple[int, bytes]:
        """Exit status and output (stdout and stderr); raises TargetError."""
        channel = self._session(line)
        channel.set_combine_stderr(True)
        channel.settimeout(timeout_s)
        output = b""
        with contextlib.closing(channel), _translated(self.name):
            while stdin is not None and (block := stdin.read(1 << 16)):
                channel.sendall(block)
            channel.shutdown_write()
            while len(output) < _OUTPUT_LIMIT and (data := channel.recv(1 << 16)):
                output += data
            if not channel.status_event.wait(timeout_s):
                raise TargetError(f"{self.name}: a command does not end", outcome="TIMEOUT")
        return channel.exit_status, output

    def _kill(self, identity: str) -> None:
        with contextlib.suppress(CannotMeasureError):
            self._run(shell.command(shell.KILL, identity), timeout_s=10)

    def _upload_error(self, source: Path, said: str) -> TargetError:
        needed = source.stat().st_size
        free = None
        with contextlib.suppress(CannotMeasureError):
            answer = shell.answers(self._run(shell.command(shell.FREE, self.folder))[1])
            free = int(answer[0]) if answer and answer[0].isdigit() else None
        if free is not None and free < needed + (64 << 10):
            return TargetError(
                f"{self.name}: no space for {source.name}: {needed} bytes needed, {free} free in {self.folder}",
                hint="free some space there, or set TMPDIR for that user to a folder that has it",
                outcome="NO_SPACE",
            )
        return TargetError(f"{self.name}: cannot store {source.name}: {said}", outcome="LOST")


class SshChannel:
    """A program on the device. Closing an SSH channel does not end it, so `kill` does where it does not end itself."""

    def __init__(self, channel: paramiko.Channel, name: str, kill: Callable[[], None]) -> None:
        self._channel = channel
        self._name = name
        self._kill = kill
        self._stderr = b""
        self._stderr_lock = threading.Lock()

    def send(self, data: bytes) -> None:
        """Write all of `data`; raises TargetError (LOST)."""
        with _translated(self._name):
            self._channel.sendall(data)

    def receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, b"" at its end; raises TargetError (TIMEOUT, LOST)."""
        self._read_stderr()
        self._channel.settimeout(timeout_s)
        with _translated(self._name):
            data = self._channel.recv(1 << 16)
        if not data and not self._channel.get_transport().is_active() and self._channel.exit_status == -1:
            raise TargetError(f"{self._name}: the connection is lost", outcome="LOST")
        return data

    def end_input(self) -> None:
        """Close the program's stdin."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def status(self, timeout_s: float) -> int:
        """The exit status, -1 where a signal ended it; raises TargetError (TIMEOUT)."""
        if not self._channel.status_event.wait(timeout_s):
            raise TargetError(f"{self._name}: a program does not end", outcome="TIMEOUT")
        return self._channel.exit_status

    def close(self) -> None:
        """End of input; 2 s to end by itself, then it is killed. Never raises."""
        self.end_input()
        transport = self._channel.get_transport()
        end = time.monotonic() + 2
        while transport.is_active() and not self._channel.status_event.is_set():
            self._read_stderr()
            while self._channel.recv_ready():
                self._channel.recv(1 << 16)  # a full window would keep the program from ending
            if time.monotonic() > end:
                self._kill()
                break
            self._channel.status_event.wait(0.05)
        self._read_stderr()
        self._channel.close()

    @property
    def diagnostics(self) -> str:
        """The end of stderr."""
        self._read_stderr()
        return self._stderr.decode("utf-8", "replace")

    def _read_stderr(self) -> None:
        with self._stderr_lock:
            while self._channel.recv_stderr_ready():
                data = self._channel.recv_stderr(1 << 16)
                if not data:
                    return
                self._stderr = (self._stderr + data)[-_DIAGNOSTICS:]


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
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
        raise TargetError(f"{where}: {str(error) or 'the connection was closed'}", outcome="LOST") from error
    except OSError as error:
        raise TargetError(
            f"{where}: {error.strerror or error}", hint="is it on, and does an SSH server run there?", outcome="LOST"
        ) from error


def _authenticate(transport: paramiko.Transport, route: Route) -> None:
    """Log in with the first key that the device takes; raises TargetError with what was tried."""
    tried = []
    for label, key in _keys(route):
        if isinstance(key, str):
            tried.append(f"{label} ({key})")
            continue
        try:
            more = transport.auth_publickey(route.user, key)
        except paramiko.BadAuthenticationType as error:
            raise TargetError(
                f"{route.user}@{route.address}: the device takes no keys, only {', '.join(error.allowed_types)}",
                hint="allow PubkeyAuthentication there; edgeprune uses no passwords",
                outcome="LOST",
            ) from error
        except paramiko.AuthenticationException:
            tried.append(label)
            continue
        if not more:
            return
        tried.append(f"{label} (accepted, but {' and '.join(more)} is asked for as well)")
    raise TargetError(
        f"{route.user}@{route.address}: the device refuses the login; tried: {', '.join(tried) or 'no key was found'}",
        hint=f"put a public key there: ssh-copy-id -p {route.port} {route.user}@{route.address}",
        outcome="LOST",
    )


def _keys(route: Route) -> Iterator[tuple[str, paramiko.PKey | str]]:
    """Keys in the order of trying, with a label; in place of a key the reason why it cannot be used."""
    files = [(str(path), _load_key(path)) for path in route.identities]
    if route.explicit:
        yield from files
    if route.agent:
        agent = paramiko.Agent()
        try:
            for key in agent.get_keys():
                yield f"agent key {key.fingerprint}", key
        finally:
            agent.close()
    if not route.explicit:
        yield from files


def _load_key(path: Path) -> paramiko.PKey | str:
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return str(error.strerror)
    except TypeError:
        return "protected by a passphrase: ssh-add it"
    except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, ValueError) as error:
        return f"not a usable private key: {error}"


def _key_kind(algorithm: str) -> str:
    """The known_hosts name of a host key algorithm: rsa-sha2-256 signs with an ssh-rsa key."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _read_config(path: str | Path | None) -> paramiko.SSHConfig | None:
    file = Path(path or "~/.ssh/config").expanduser()
    if path is None and not file.exists():
        return None
    try:
        return paramiko.SSHConfig.from_path(str(file))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except paramiko.ConfigParseError as error:
        raise UsageError(f"{file}: {error}") from error
