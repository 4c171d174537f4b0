"""The device's lock: two users never measure at once, and who came first is next."""

import fcntl
import json
import os
import stat
import sys
import time

from .frames import HEARTBEAT_S, PROTOCOL, Frames
from .turns import Turn, is_current, open_shared

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def lock_path() -> str:
    """One place for all users of the device; EDGEPRUNE_LOCK names another."""
    if os.environ.get("EDGEPRUNE_LOCK"):
        return os.environ["EDGEPRUNE_LOCK"]
    for folder in ("/run/lock", "/var/lock"):
        if os.path.isdir(folder) and os.stat(folder).st_mode & 0o1777 == 0o1777:  # sticky, for everyone
            return os.path.join(folder, "edgeprune-device.lock")
    import tempfile

    return os.path.join(tempfile.gettempdir(), "edgeprune-device.lock")


class DeviceLock:
    """An flock that lasts as long as the agent. The file is removed on release, so its inode is checked on taking."""

    def __init__(self, path: "Path | str") -> None:
        self.path = path
        self.descriptor = -1

    def try_take(self, owner: str) -> "dict[str, Any] | None":
        """None where the lock is ours now, else who holds it."""
        descriptor = open_shared(self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = holder_of(descriptor)
            os.close(descriptor)
            return holder
        held = os.fstat(descriptor)
        if not is_current(descriptor, self.path):
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

    def holder(self) -> "dict[str, Any]":
        """Who holds it, as far as it can be read; with somebody in the line before us it may be nobody yet."""
        try:
            descriptor = os.open(str(self.path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, PermissionError):
            return {"owner": "another who waits"}
        try:
            return holder_of(descriptor)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        if self.descriptor >= 0:
            try:
                os.unlink(str(self.path))
            except OSError as error:
                print("lock:", error, file=sys.stderr)  # another user's file in a sticky folder: free all the same
            os.close(self.descriptor)
            self.descriptor = -1


def holder_of(descriptor: int) -> "dict[str, Any]":
    """What the lock's file says: text of other users, of which only owner, process and time are taken."""
    try:
        said = json.loads(os.pread(descriptor, 1000, 0).decode("utf-8", "replace"))
        holder = {"owner": str(said["owner"])[:200]}  # type: dict[str, Any]
        for name, kinds in (("pid", int), ("since", (int, float))):
            if isinstance(said.get(name), kinds) and said[name] > 0:
                holder[name] = said[name]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {"owner": "unknown"}
    return holder


def wait_for_lock(lock: DeviceLock, owner: str, wait_s: float, out: Frames) -> bool:
    """Take the lock, waiting up to `wait_s` in line; says `waiting` and at last `busy` with the owner."""
    turn = Turn(str(lock.path) + ".line")
    try:
        holder = stand_in_line(lock, turn, owner, wait_s, out)
    finally:
        turn.leave()
    if holder is not None:  # after leaving: who hears it may end this process at once
        out.send(type="busy", edgeprune_agent=PROTOCOL, holder=holder)
    return holder is None


def stand_in_line(lock: DeviceLock, turn: Turn, owner: str, wait_s: float, out: Frames) -> "dict[str, Any] | None":
    """None once the lock is ours, else who holds it when the time is up."""
    end = time.monotonic() + wait_s
    said = -HEARTBEAT_S
    while True:
        holder = lock.try_take(owner) if turn.has_come() else lock.holder()
        now = time.monotonic()
        if holder is None or now >= end:
            return holder
        if now - said >= HEARTBEAT_S:
            said = now
            out.send(type="waiting", edgeprune_agent=PROTOCOL, holder=holder)
        time.sleep(0.2)
