"""A device over SSH: `--target ssh://pi@board`. Keys or agent only; unknown and changed host keys are refused.

~/.ssh/config is honoured: HostName, Port, User, IdentityFile, IdentitiesOnly, UserKnownHostsFile, HostKeyAlias,
ProxyJump, ProxyCommand. Files travel through `cat`, so that a device without an SFTP server will do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.targets import known_hosts
from edgeprune.targets.parse import query_options
from edgeprune.targets.remote import RemoteTarget
from edgeprune.targets.route import parse_address
from edgeprune.targets.ssh_link import SshLink

__all__ = ["SshTarget"]

_OPTIONS = ("config", "identity", "known_hosts", "python")


class SshTarget(RemoteTarget):
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
        self._ssh = SshLink(
            host,
            user=user,
            port=port,
            identity=None if identity is None else Path(identity).expanduser(),
            known_hosts=None if known_hosts is None else Path(known_hosts).expanduser(),
            config=config,
            text=text,
        )
        super().__init__(self._ssh, python=python)

    @classmethod
    def from_text(cls, text: str, **options: Any) -> SshTarget:
        """ "ssh://user@host:port?identity=...&python=..."; keyword options win. Raises UsageError."""
        host, user, port = parse_address(text)
        given = {**query_options(text, _OPTIONS), **options}
        for name in given:
            if name not in _OPTIONS:
                raise UsageError(f"{text}: {name!r} is not an option of ssh", hint=f"options: {', '.join(_OPTIONS)}")
        return cls(host, user=user, port=port, text=text, **given)

    @property
    def known_hosts_file(self) -> Path:
        """Where a newly trusted key belongs."""
        return self._ssh.route.known_hosts[0]

    def offered_key(self) -> tuple[known_hosts.HostKey, str]:
        """The key that the host offers now and the name it is listed under; nothing is sent but the handshake.

        The hosts that the way leads through must be trusted already. Raises TargetError.
        """
        return self._ssh.offered_key(), self._ssh.route.listed_as

    def listed_keys(self) -> tuple[known_hosts.Entry, ...]:
        """All entries of the known_hosts files."""
        return known_hosts.read(self._ssh.route.known_hosts)
