"""Logging in at an SSH server: by the agent's keys and by key files, never by a password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import paramiko

from edgeprune.errors import TargetError
from edgeprune.targets.route import Route

__all__ = ["authenticate"]


def authenticate(transport: paramiko.Transport, route: Route) -> None:
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
