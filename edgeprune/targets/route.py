"""The way to an SSH host: address, keys, jump hosts, from what the user wrote and what ~/.ssh/config says."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edgeprune.errors import TargetError, UsageError
from edgeprune.targets import known_hosts as hosts

__all__ = ["Route", "address", "parse_address", "proxy_socket", "resolve"]

_HOST = re.compile(r"[A-Za-z0-9_:.%][A-Za-z0-9_:.%-]*")  # nothing that a ProxyCommand could take for an option
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@\\-]*\$?")
_DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a host is, and how one gets there and in."""

    host: str  # as the user wrote it
    address: str
    port: int
    user: str
    listed_as: str  # its name in known_hosts
    known_hosts: tuple[Path, ...]
    identities: tuple[Path, ...]
    explicit: bool  # the identities were asked for, and are not the usual files
    agent: bool
    jumps: tuple[str, ...]
    proxy_command: str | None


def resolve(
    host: str,
    user: str | None,
    port: int | None,
    entry: Mapping[str, Any],
    *,
    identity: Path | None,
    known_hosts: Path | None,
) -> Route:
    """The route to a host; `entry` is what ~/.ssh/config says of it. Raises UsageError."""
    if not _HOST.fullmatch(host) or (user is not None and not _USER.fullmatch(user)):
        raise UsageError(f"{user or ''}@{host}: not a user and host name", hint="write ssh://user@host:port")
    port = port or int(entry.get("port", 22))
    name = str(entry.get("hostname", host))
    listed = [Path(path).expanduser() for path in str(entry.get("userknownhostsfile", "~/.ssh/known_hosts")).split()]
    identities = [Path(path).expanduser() for path in entry.get("identityfile", [])]
    if identity is not None:
        identities = [identity]
    explicit = bool(identities)
    if not explicit:
        identities = [path for file in _DEFAULT_IDENTITIES if (path := Path("~/.ssh", file).expanduser()).exists()]
    jumps, command = str(entry.get("proxyjump", "none")), str(entry.get("proxycommand", "none"))
    return Route(
        host=host,
        address=name,
        port=port,
        user=user or entry.get("user") or getpass.getuser(),
        listed_as=entry.get("hostkeyalias") or hosts.host_name(name, port),
        known_hosts=(known_hosts,) if known_hosts is not None else (*listed, Path("/etc/ssh/ssh_known_hosts")),
        identities=tuple(identities),
        explicit=explicit,
        agent=identity is None and entry.get("identitiesonly", "no") != "yes" and _agent_is_ours(entry),
        jumps=() if jumps == "none" else tuple(jump.strip() for jump in jumps.split(",")),
        proxy_command=None if command == "none" else command,
    )


def _agent_is_ours(entry: Mapping[str, Any]) -> bool:
    """False where IdentityAgent says `none`; raises UsageError where it names another agent than the environment."""
    named, ours = str(entry.get("identityagent", "SSH_AUTH_SOCK")), os.environ.get("SSH_AUTH_SOCK", "")
    if named.lower() == "none":
        return False
    if named not in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK") and str(Path(named).expanduser()) != ours:
        raise UsageError(
            f"IdentityAgent {named}: edgeprune asks only the agent of the environment (SSH_AUTH_SOCK)",
            hint=f"start it with SSH_AUTH_SOCK={shlex.quote(named)}, or name a key: ssh://...?identity=FILE",
        )
    return True


def address(host: str, route: Route) -> str:
    """The canonical text: ssh://user@host:port."""
    return f"ssh://{route.user}@{f'[{host}]' if ':' in host else host}:{route.port}"


def parse_address(text: str) -> tuple[str, str | None, int | None]:
    """Host, user and port of ssh://user@host:port; raises UsageError."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}", hint="write it like ssh://user@host:22") from error
    if parts.password is not None:
        raise UsageError("an address with a password in it is refused", hint="use a key: ssh-copy-id user@host")
    if not parts.hostname or parts.path not in {"", "/"}:
        raise UsageError(f"{text!r} is not the address of a host", hint="write it like ssh://user@host:22")
    # urlsplit lowers the host's letters; ~/.ssh/config tells them apart
    host = parts.hostname if ":" in parts.hostname else re.sub(r"^.*@|:\d*$", "", parts.netloc)
    return unquote(host), None if parts.username is None else unquote(parts.username), port


def proxy_socket(command: str) -> socket.socket:
    """A socket whose other end is a ProxyCommand's stdin and stdout; no shell interprets it."""
    ours, theirs = socket.socketpair()
    argv = shlex.split(command)
    if argv[:1] == ["exec"]:
        argv = argv[1:]
    try:
        process = subprocess.Popen(
            argv,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise TargetError(f"ProxyCommand {command!r}: {error.strerror}", hint="check ~/.ssh/config") from error
    finally:
        theirs.close()
    threading.Thread(target=process.wait, daemon=True).start()  # it ends with the socket; leave no zombie
    return ours
