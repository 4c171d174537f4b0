"""The device's lock: two users never measure at once."""

import fcntl
import json
import os
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .frames import HEARTBEAT_S, PROTOCOL, Frames


def lock_path() -> Path:
    """One place for all users of the device; EDGEPRUNE_LOCK names another."""
    if os.environ.get("EDGEPRUNE_LOCK"):
        return Path(os.environ["EDGEPRUNE_LOCK"])
    for folder in (Path("/run/lock"), Path("/var/lock")):
        if folder.is_dir() and folder.stat().st_mode & 0o1777 == 0o1777:  # sticky, for everyone
            return folder / "edgeprune-device.lock"
    return Path(tempfile.gettempdir()) / "edgeprune-device.lock"


class DeviceLock:
    """An flock that lasts as long as the agent. The file is removed on release, so its inode is checked on taking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def try_take(self, owner: str) -> "dict[str, Any] | None":
        """None where the lock is ours now, else who holds it."""
        descriptor = self.open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 1000, 0).decode("utf-8", "replace")
            os.close(descriptor)
            try:
                return dict(json.loads(text))
            except ValueError:
                return {"owner": "unknown"}
        held = os.fstat(descriptor)
        try:
            current = self.path.stat().st_ino == held.st_ino
        except FileNotFoundError:
            current = False
        if not current:
            os.close(descriptor)
            return {"owner": "released just now"}
        if not stat.S_ISREG(held.st_mode) or held.st_nlink != 1:
            os.close(descriptor)
            return {"owner": "{} is not a plain file; remove it".format(self.path)}
        self.descriptor = descriptor
        if os.access(str(self.path), os.W_OK):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"owner": owner, "pid": os.getpid(), "since": time.time()}).encode(), 0)
        return None

    def open(self) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        for mode, extra in ((os.O_RDWR, 0), (os.O_RDONLY, 0), (os.O_RDWR, os.O_CREAT)):
            try:
                descriptor = os.open(str(self.path), mode | extra | flags, 0o666)
            except (FileNotFoundError, PermissionError):
                if extra:
                    raise
                continue
            if extra:
                try:
                    os.fchmod(descriptor, 0o666)  # past the umask: other users of the device lock it as well
                except PermissionError:
                    return descriptor  # another user created it between our two tries
            return descriptor
        raise FileNotFoundError(str(self.path))

    def release(self) -> None:
        if self.descriptor >= 0:
            try:
                self.path.unlink()
            except OSError as error:
                print("lock:", error, file=sys.stderr)  # another user's file in a sticky folder: free all the same
            os.close(self.descriptor)
            self.descriptor = -1


def wait_for_lock(lock: DeviceLock, owner: str, wait_s: float, out: Frames) -> bool:
    """Take the lock, waiting up to `wait_s`; says `waiting` and at last `busy` with the owner."""
    end = time.monotonic() + wait_s
    said = -HEARTBEAT_S
    while True:
        holder = lock.try_take(owner)
        if holder is None:
            return True
        now = time.monotonic()
        if now >= end:
            out.send(type="busy", edgeprune_agent=PROTOCOL, holder=holder)
            return False
        if now - said >= HEARTBEAT_S:
            said = now
            out.send(type="waiting", edgeprune_agent=PROTOCOL, holder=holder)
        time.sleep(0.2)
