"""A real OpenSSH server on 127.0.0.1 for tests, with keys of its own; nothing of it is left afterwards.

with Sshd() as server:
    with open_target(server.url) as target: ...
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

__all__ = ["Sshd", "sshd_missing"]

_SSHD = "/usr/sbin/sshd"


def sshd_missing() -> str:
    """Why no server can be started here, or ""."""
    if not Path(_SSHD).exists():
        return f"{_SSHD} is missing (Debian: openssh-server)"
    return "" if shutil.which("ssh-keygen") else "ssh-keygen is missing (Debian: openssh-client)"


class Sshd:
    """A context manager: entering starts the server. `environment` is set for every program it starts.

    `kinds` are those of its host keys; only the first is listed in `known_hosts`.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, *, kinds: Sequence[str] = ("ed25519",)) -> None:
        self._kinds = tuple(kinds)
        self._environment = {"SHLVL": "1", **(environment or {})}  # SHLVL keeps slow shell start-up files out
        self._process: subprocess.Popen[bytes] | None = None
        self.user = getpass.getuser()
        self.port = 0
        self.folder = Path()

    @property
    def identity(self) -> Path:
        """The private key that the server lets in."""
        return self.folder / "identity"

    @property
    def host_key(self) -> Path:
        """The server's first private key; the public one is beside it."""
        return self.folder / f"host_{self._kinds[0]}"

    @property
    def known_hosts(self) -> Path:
        """A file that lists the server's first key."""
        return self.folder / "known_hosts"

    @property
    def url(self) -> str:
        """The target's address, with identity, known hosts and the running interpreter."""
        options = {"identity": self.identity, "known_hosts": self.known_hosts, "python": sys.executable}
        query = "&".join(f"{name}={quote(str(value))}" for name, value in options.items())
        return f"ssh://{self.user}@127.0.0.1:{self.port}?{query}"

    @property
    def fingerprint(self) -> str:
        """Of the present host key, as ssh-keygen prints it."""
        return _keygen("-l", "-f", f"{self.host_key}.pub").split()[1]

    def __enter__(self) -> Sshd:
        self.folder = Path(tempfile.mkdtemp(prefix="sshd-"))
        try:
            _keygen("-q", "-t", "ed25519", "-N", "", "-f", str(self.identity))
            for kind in self._kinds:
                _keygen("-q", "-t", kind, "-N", "", "-f", str(self.folder / f"host_{kind}"))
            shutil.copy(f"{self.identity}.pub", self.folder / "authorized_keys")
            self._start()
            public = Path(f"{self.host_key}.pub").read_text(encoding="utf-8")
            self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}", encoding="utf-8")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def change_host_key(self) -> None:
        """Start again on the same port with another first key, as a reinstalled or a foreign host would."""
        self.stop()
        self.host_key.unlink()
        _keygen("-q", "-t", self._kinds[0], "-N", "", "-f", str(self.host_key))
        self._start(self.port)

    def drop_connections(self) -> int:
        """Kill the server's processes of all open connections, so many: the link breaks without a goodbye."""
        killed = 0
        for pid in [] if self._process is None else _descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        return killed

    def stop(self) -> None:
        """End the server and its connections."""
        self.drop_connections()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None

    def _start(self, port: int | None = None) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
        self.port = port or _free_port()
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "AuthorizedKeysFile": str(self.folder / "authorized_keys"),
            "PidFile": str(self.folder / "pid"),
            "AuthenticationMethods": "publickey",
            "PasswordAuthentication": "no",
            "UsePAM": "no",
            "StrictModes": "no",
            "UseDNS": "no",
            "MaxStartups": "300",
            "MaxSessions": "300",
            "SetEnv": " ".join(shlex.quote(f"{name}={value}") for name, value in self._environment.items()),
            "Subsystem": "sftp internal-sftp",
        }
        config = self.folder / "sshd_config"
        lines = [f"HostKey {self.folder / f'host_{kind}'}" for kind in self._kinds]
        lines += [f"{name} {value}" for name, value in settings.items()]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        log = self.folder / "log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [_SSHD, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        end = time.monotonic() + 10
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"sshd did not start: {log.read_text(encoding='utf-8')}")


def _keygen(*arguments: str) -> str:
    return subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True, text=True).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found.extend(below)
        queue.extend(below)
    return found
