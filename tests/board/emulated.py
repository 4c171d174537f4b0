"""An emulated 64-bit ARM board for tests: booted by scripts/emulated-board, reached over SSH like any other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

SCRIPT = Path(__file__).parents[2] / "scripts" / "emulated-board"
_TOOLS = (
    "qemu-system-aarch64",
    "mmdebstrap",
    "mkfs.ext4",
    "depmod",
    "modprobe",
    "cpio",
    "ssh-keygen",
    "ssh",
    "setpriv",
)
_BOOT_S = 240.0

# All that could stay behind: names, modes, sizes and times of the disk, and of the places in memory.
_LISTING = (
    r"find / /tmp /run /dev/shm -xdev -not -path '/run/sshd.*' "
    r"\( -type d -printf '%p %m %u\n' -o -printf '%p %m %u %s %T@\n' \) | sort"
)


def missing() -> str:
    """Why no board can be emulated here, or ""."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    names = [name for name in _TOOLS if shutil.which(name, path=path) is None]
    packages = "qemu-system-arm mmdebstrap e2fsprogs kmod cpio openssh-client util-linux"
    return f"{', '.join(names)} missing (Debian: {packages})" if names else ""


class EmulatedBoard:
    """A context manager: entering boots it, leaving ends it with all that it wrote."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path()
        self.port = 0
        self.before = ""  # the listing of the fresh board
        self.equipped = False

    def __enter__(self) -> EmulatedBoard:
        self.folder = Path(tempfile.mkdtemp(prefix="board-"))
        try:
            subprocess.run([SCRIPT, "build"], check=True, stdout=subprocess.DEVNULL)
            with (self.folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", SCRIPT, "start", self.folder],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._await_ready(1)
            self.port = int((self.folder / "port").read_text())
            self.before = self.listing()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, user: str = "pi") -> str:
        """The target's address, with key and known hosts."""
        options = {"identity": self.folder / "identity", "known_hosts": self.folder / "known_hosts"}
        query = "&".join(f"{name}={quote(str(value))}" for name, value in options.items())
        return f"ssh://{user}@127.0.0.1:{self.port}?{query}"

    def sh(self, script: str, user: str = "root") -> str:
        """What a shell there prints."""
        command = [
            "ssh", "-p", str(self.port), "-i", str(self.folder / "identity"), "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-F", "none", f"{user}@127.0.0.1", "sh -s",
        ]  # fmt: skip
        for pause in (1, 2, 4, 8, 16, 0):
            done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=120, check=False)
            if "kex_exchange_identification" not in done.stderr:
                break  # else: a board that has just started, on a busy machine, does not answer yet
            time.sleep(pause)
        assert done.returncode == 0, f"{script}: {done.stderr}"
        return done.stdout

    def listing(self) -> str:
        """Every file of the board."""
        return self.sh(_LISTING)

    def left_behind(self) -> list[str]:
        """Processes and temporary files of edgeprune that are there now."""
        return self.sh(
            "ls -d /tmp/edgeprune-* /run/lock/edgeprune* 2>/dev/null; "
            "ps -eo args | grep -e '[e]dgeprune-[A-Za-z0-9]*/' -e '[a]gent-[0-9a-f]*.pyz'; true"
        ).splitlines()

    def wait_until_clean(self) -> None:
        """For as long as the agent may take to see that the host has gone."""
        end = time.monotonic() + 100
        while (left := self.left_behind()) and time.monotonic() < end:
            time.sleep(1)
        assert left == []

    def freeze(self) -> None:
        """Stop the whole machine."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def reboot(self) -> None:
        """As by the reset button."""
        times = self._boots()
        self.sh("(sleep 0.1; busybox reboot -f) >/dev/null 2>&1 &")
        self._await_ready(times + 1)

    def _boots(self) -> int:
        return self._console().count("BOARD READY")

    def _console(self) -> str:
        path = self.folder / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _await_ready(self, times: int) -> None:
        end = time.monotonic() + _BOOT_S
        while self._boots() < times:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text(errors="replace")
            assert time.monotonic() < end, f"the board did not start: {self._console()[-2000:]}"
            time.sleep(0.2)
