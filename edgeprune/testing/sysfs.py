"""A sysfs whose files are computed when they are read, for tests of sensors: a FUSE mount in a process of its own.

    with Sysfs(folder, {"sys/class/hwmon/hwmon1/power1_input": "2e6 + 3e6 * on"}) as sysfs:
        sysfs.set(on=1)

A file's value is an expression of `t` (CLOCK_MONOTONIC_RAW in s, since the start), of the variables set, and of `math`;
`busy` is 1 while a worker of the agent, started below this process, runs. Text in quotes is text. A variable named
`fail` with an errno's name makes every file fail so; `gone` with a part of a path makes those disappear.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Sysfs", "sysfs_missing"]

_START_S = 20.0


def sysfs_missing() -> str:
    """Why no FUSE can be mounted here, or ""."""
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"mfusepy does not load ({error}); apt-get install libfuse2"
    if shutil.which("fusermount") is None:
        return "fusermount is missing; apt-get install fuse"
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse cannot be opened"


class Sysfs:
    """Mounted at `folder`/sys; `folder`/proc leads to the real one. Left, it is unmounted."""

    def __init__(self, folder: Path, files: Mapping[str, str], **variables: Any) -> None:
        self.root = folder
        self._files = {"/" + name.removeprefix("sys/"): text for name, text in files.items()}
        self._variables: dict[str, Any] = {}
        self._control = folder / "variables.json"
        self._initial = variables
        self._process: subprocess.Popen[bytes] | None = None
        self.started = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)

    def __enter__(self) -> Sysfs:
        mount = self.root / "sys"
        mount.mkdir(parents=True)
        (self.root / "proc").symlink_to("/proc")
        self.set(**self._initial)
        arguments = json.dumps(
            {"mount": str(mount), "files": self._files, "control": str(self._control), "start": self.started}
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeprune.testing.sysfs", arguments, str(os.getpid())], stdin=subprocess.DEVNULL
        )
        end = time.monotonic() + _START_S
        while not mount.is_mount():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the sysfs could not be mounted")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["fusermount", "-u", "-z", str(self.root / "sys")], check=False)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait()

    def set(self, **variables: Any) -> None:
        """Set variables of the expressions, from now on."""
        self._variables |= variables
        part = self._control.with_suffix(".part")
        part.write_text(json.dumps(self._variables))
        part.replace(self._control)


def _serve(arguments: Mapping[str, Any], parent: int) -> None:
    import mfusepy

    files: dict[str, str] = arguments["files"]
    control = Path(arguments["control"])
    worker = _Worker(parent)
    compiled = {path: compile(text, path, "eval") for path, text in files.items()}

    def variables() -> dict[str, Any]:
        return dict(json.loads(control.read_text()))

    def present() -> list[str]:
        gone = variables().get("gone")
        return [path for path in files if not gone or gone not in path]

    class Tree(mfusepy.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:  # noqa: ARG002
            there = present()
            if path in there:
                return {"st_mode": stat.S_IFREG | 0o444, "st_nlink": 1, "st_size": 4096}
            if path == "/" or any(name.startswith(path + "/") for name in there):
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            raise mfusepy.FuseOSError(errno.ENOENT)

        def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002
            folder = path.rstrip("/") + "/"
            names = {name[len(folder) :].partition("/")[0] for name in present() if name.startswith(folder)}
            return [".", "..", *sorted(names)]

        def open(self, path: str, flags: int) -> int:  # noqa: ARG002
            if path not in present():
                raise mfusepy.FuseOSError(errno.ENOENT)
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
            known = variables()
            if known.get("fail") and (path.endswith("_input") or "energy" in path):
                raise mfusepy.FuseOSError(getattr(errno, known["fail"]))
            t = time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - arguments["start"]
            names = {"math": math, "t": known.get("stop_at", t) if known.get("stuck") else t, **known}
            if "busy" in compiled[path].co_names:
                names["busy"] = worker.is_busy()
            value = eval(compiled[path], {"__builtins__": {"int": int, "min": min, "max": max}}, names)  # noqa: S307
            text = value if isinstance(value, str) else str(round(value))
            return (text + "\n").encode()[offset : offset + size]

    mfusepy.FUSE(
        Tree(), arguments["mount"], foreground=True, nothreads=False, direct_io=True, attr_timeout=0, entry_timeout=0
    )


class _Worker:
    """The agent's worker among the descendants of a process."""

    def __init__(self, ancestor: int) -> None:
        self._ancestor = ancestor
        self._last: int | None = None

    def is_busy(self) -> int:
        """1 where it runs, or is ready to, at this moment; 0 where it sleeps or there is none."""
        if self._last is None or not Path(f"/proc/{self._last}").exists():
            self._last = self._find()
        try:
            text = Path(f"/proc/{self._last}/stat").read_text()
        except OSError:
            return 0
        return int(text.rpartition(")")[2].split()[0] in "RD")

    def _find(self) -> int | None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ValueError):
                    if b"--worker" in (entry / "cmdline").read_bytes().split(b"\0") and self._descends(int(entry.name)):
                        return int(entry.name)
        return None

    def _descends(self, process: int) -> bool:
        while process > 1:
            if process == self._ancestor:
                return True
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        return False


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]), int(sys.argv[2]))
