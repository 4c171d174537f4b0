"""A board for tests: dropbear or OpenSSH with a user of its own, its home and login shell, in a mount namespace.

Only root may make one. Nothing of it is seen outside, and nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psutil

USER, UID = "board", 12345
PYTHON = shutil.which("python3", path="/usr/bin:/bin")  # one that every user may run


def missing(*programs: str) -> str:
    """Why no board can be had here, or ""."""
    if os.geteuid() != 0:
        return "only root can make a mount namespace"
    absent = [name for name in ("unshare", "ssh-keygen", *programs) if not shutil.which(name, path=_PATH)]
    if absent or not PYTHON:
        return f"missing: {', '.join(absent) or 'a python3 in /usr/bin'}"
    done = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    return done.stderr.decode()


class Board:
    """A context manager: entering starts the server.

    `files` are put into the home (start-up files of the shell), `copies` are copied to it. `hidden` are not there for
    its user: a file that is not executable or an empty folder that is not writable takes their place. "~" in the
    environment is the home. `disk` is the size of ~/tmp. The shell "ash" is that of busybox.
    """

    def __init__(
        self,
        server: str = "dropbear",
        *,
        shell: str = "/bin/sh",
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        hidden: Sequence[str] = (),
        copies: Mapping[str, str] | None = None,
        disk: str = "",
    ) -> None:
        self._server = server
        self._shell = shell
        self._files = dict(files or {})
        self._environment = {"TMPDIR": "~/tmp", "EDGEPRUNE_LOCK": "~/lock", **(environment or {})}
        self._hidden = tuple(hidden)
        self._copies = dict(copies or {})
        self._disk = disk
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.folder = Path()

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def url(self, *, port: int | None = None, python: str | None = PYTHON) -> str:
        """The target's address; `port` is that of a relay."""
        options = {"identity": self.folder / "identity", "known_hosts": self.known_hosts}
        query = "&".join(f"{name}={quote(str(value))}" for name, value in options.items())
        return f"ssh://{USER}@127.0.0.1:{port or self.port}?{query}{f'&python={python}' if python else ''}"

    def __enter__(self) -> Board:
        self.folder = Path(tempfile.mkdtemp(prefix="board-", dir="/var/tmp"))
        try:
            self.folder.chmod(0o755)
            self._make()
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            for process in self.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()
        shutil.rmtree(self.folder)

    def processes(self) -> list[psutil.Process]:
        """All that run on the board: those in its mount namespace."""
        assert self._process is not None
        namespace = _namespace(self._process.pid)
        return [process for process in psutil.process_iter() if namespace and _namespace(process.pid) == namespace]

    def servers(self) -> list[psutil.Process]:
        """The server's own processes."""
        return [process for process in self.processes() if process.name().startswith(("sshd", "dropbear"))]

    def programs(self) -> list[str]:
        """The command lines of the others, after a while to end."""
        end = time.monotonic() + 5
        while (left := self.running()) and time.monotonic() < end:
            time.sleep(0.02)
        return left

    def running(self) -> list[str]:
        """The command lines of the others, now."""
        lines = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
                lines.append(" ".join(process.cmdline()))
        return [line for line in lines if line and not line.startswith(("sshd:", "/usr/sbin/sshd", "dropbear"))]

    def left_behind(self) -> list[str]:
        """Folders of sessions."""
        return [str(path) for path in self.home.rglob("edgeprune-*")]

    def _make(self) -> None:
        ssh = self.home / ".ssh"
        ssh.mkdir(parents=True)
        (self.home / "tmp").mkdir()
        for key in ("identity", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True)
        shutil.copy(self.folder / "identity.pub", ssh / "authorized_keys")
        for name, content in self._files.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        for name, source in self._copies.items():
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, self.home / name)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, UID, UID)
        self.home.chmod(0o700)
        if self._shell == "ash":
            (self.folder / "ash").symlink_to(str(shutil.which("busybox")))
            self._shell = str(self.folder / "ash")
        self._environment = {name: value.replace("~", str(self.home)) for name, value in self._environment.items()}
        entry = f"{USER}:x:{UID}:{UID}::{self.home}:{self._shell}"
        (self.folder / "passwd").write_text(f"{Path('/etc/passwd').read_text()}{entry}\n")
        (self.folder / "shells").write_text(f"{self._shell}\n")
        (self.folder / "nothing").write_text("")
        (self.folder / "nothing").chmod(0o000)

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        binds = [("passwd", "/etc/passwd"), ("shells", "/etc/shells")]
        lines = ["set -e", *(f"mount --bind {self.folder / name} {there}" for name, there in binds)]
        for path in self._hidden:
            if Path(path).is_dir():
                lines.append(f"mount -t tmpfs -o mode=000 tmpfs {path}")
            else:
                lines.append(f"mount --bind {self.folder / 'nothing'} {path}")
        if self._disk:
            lines.append(f"mount -t tmpfs -o size={self._disk},uid={UID},mode=700 tmpfs {self.home / 'tmp'}")
        argv = self._dropbear() if self._server == "dropbear" else self._sshd()
        script = "\n".join([*lines, 'exec "$@"'])
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *argv],
                env={"PATH": _PATH, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        public = (self.folder / "host.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")
        end = time.monotonic() + 10
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "log").read_text())

    def trust(self, port: int) -> None:
        """List the server's key for a relay, too."""
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {(self.folder / 'host.pub').read_text()}")

    def _dropbear(self) -> list[str]:
        key = self.folder / "host_dropbear"
        subprocess.run(
            ["dropbearconvert", "openssh", "dropbear", self.folder / "host", key], check=True, capture_output=True
        )
        return ["dropbear", "-F", "-E", "-e", "-s", "-r", str(key), "-p", f"127.0.0.1:{self.port}", "-P", "/dev/null"]

    def _sshd(self) -> list[str]:
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": self.folder / "host",
            "PidFile": "none",
            "AuthenticationMethods": "publickey",
            "UsePAM": "no",
            "UseDNS": "no",
            "SetEnv": " ".join(f"{name}={value}" for name, value in self._environment.items()),
        }
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)]


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _namespace(pid: int) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    return ""


def free_user() -> str:
    """Why the user's number cannot be used, or ""."""
    with contextlib.suppress(KeyError):
        return f"the user {pwd.getpwuid(UID).pw_name} has the number {UID}"
    return ""


@contextlib.contextmanager
def board(*arguments: str, **settings: object) -> Iterator[Board]:
    """A board, or a skipped test with the reason."""
    from tests.targets.conftest import skip_or_fail

    server = arguments[0] if arguments else "dropbear"
    shell = str(settings.get("shell", "/bin/sh"))
    programs = ["dropbear", "dropbearconvert"] if server == "dropbear" else ["sshd"]
    if why := missing(*programs, "busybox" if shell == "ash" else shell) or free_user():
        skip_or_fail(why)
    with Board(*arguments, **settings) as made:  # type: ignore[arg-type]
        yield made
