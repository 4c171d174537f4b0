"""The connection to an SSH host: the way there through jump hosts, the host's key, the login."""

from __future__ import annotations

import logging
import shlex
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko

from edgeprune.errors import TargetError
from edgeprune.targets import known_hosts, ssh_config
from edgeprune.targets.link import Stream
from edgeprune.targets.route import Route, address, parse_address, proxy_socket, resolve
from edgeprune.targets.ssh_keys import authenticate
from edgeprune.targets.ssh_stream import SshStream, deadline, translated

__all__ = ["SshLink"]

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its errors come as exceptions; do not print them too

_CONNECT_S = 15.0
_COMMAND_S = 30.0
_KEEPALIVE_S = 15
_DEAD_MS = 60_000


class SshLink:
    """One host. `text` is what the user would pass to `edgeprune device trust`."""

    def __init__(
        self,
        host: str,
        *,
        user: str | None,
        port: int | None,
        identity: Path | None,
        known_hosts: Path | None,
        config: str | Path | None,
        text: str | None,
    ) -> None:
        self._config = ssh_config.read(config)
        self._identity = identity
        self._known_hosts = known_hosts
        self.route = self._resolve(host, user, port)
        self.name = address(host, self.route)
        self._text = text or self.name
        self._transports: list[paramiko.Transport] = []

    def connect(self) -> None:
        """Check the host's key and log in; raises TargetError, HostKeyError."""
        self.disconnect()
        try:
            self._authenticated(self.route)
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Close the connection, and those it leads through."""
        for transport in reversed(self._transports):
            transport.close()
        self._transports.clear()

    @property
    def alive(self) -> bool:
        """False where the connection is known to be gone."""
        return bool(self._transports) and self._transports[-1].is_active()

    def open(self, line: str) -> Stream:
        """Have the login shell run a command line; raises TargetError."""
        if not self.alive:
            raise TargetError(f"{self.name}: the connection is lost", outcome="LOST")
        try:
            return SshStream(self._transports[-1], line, self.name, _COMMAND_S)
        except TargetError as error:
            if error.outcome == "TIMEOUT":
                self.disconnect()  # or everything that follows would wait as long
            raise

    def offered_key(self) -> known_hosts.HostKey:
        """The key that the host offers now; nothing is sent to it but the handshake. Raises TargetError."""
        try:
            return self._handshake(self.route)
        finally:
            self.disconnect()

    def _resolve(self, host: str, user: str | None, port: int | None) -> Route:
        entry = self._config.lookup(host) if self._config else {}
        return resolve(host, user, port, entry, identity=self._identity, known_hosts=self._known_hosts)

    def _authenticated(self, route: Route, depth: int = 0) -> paramiko.Transport:
        key = self._handshake(route, depth)
        known_hosts.check(
            known_hosts.read(route.known_hosts),
            route.listed_as,
            key,
            target=shlex.quote(self._text if route == self.route else address(route.host, route)),
        )
        transport = self._transports[-1]
        where = f"{route.user}@{route.address}:{route.port}"
        with deadline(transport, where, _COMMAND_S), translated(where):
            authenticate(transport, route)
        transport.set_keepalive(_KEEPALIVE_S)
        return transport

    def _handshake(self, route: Route, depth: int = 0) -> known_hosts.HostKey:
        where = f"{route.address}:{route.port}"
        with translated(where):
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
            end = time.monotonic() + _CONNECT_S
            try:
                transport.start_client(timeout=_CONNECT_S + 1)
                key = transport.get_remote_server_key()
            except paramiko.SSHException:
                if time.monotonic() < end:
                    raise
                raise TimeoutError from None  # paramiko does not say that this is why
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
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # keep-alives that nobody acknowledges end the connection
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_MS)
        return connection


def _key_kind(algorithm: str) -> str:
    """The known_hosts name of a host key algorithm: rsa-sha2-256 signs with an ssh-rsa key."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm
