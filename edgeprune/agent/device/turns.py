"""First come, first served: who waits for the device's lock waits in a line.

A ticket is a byte of the line's file, locked by its holder (fcntl(2), F_SETLK) as long as it waits: the kernel frees
it with the process, so nobody waits behind the dead. The file holds the number of the next ticket.
"""

import errno
import fcntl
import os
import stat
import time

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from pathlib import Path

TAKEN = (errno.EACCES, errno.EAGAIN)
DIGITS = 20
PATIENCE_S = 10.0
LEAVING_S = 2.0


def open_shared(path: "Path | str") -> int:
    """A file that all users of the device may lock; a link is not followed."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    for mode, extra in ((os.O_RDWR, 0), (os.O_RDONLY, 0), (os.O_RDWR, os.O_CREAT)):
        try:
            descriptor = os.open(str(path), mode | extra | flags, 0o666)
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
    raise FileNotFoundError(str(path))


def is_current(descriptor: int, path: "Path | str") -> bool:
    """Whether the open file is still the one at the path: it is removed when it is free."""
    try:
        found = os.stat(str(path))
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def await_flock(descriptor: int) -> bool:
    """Hold the whole file, which others hold for an instant; False where that takes them too long."""
    end = time.monotonic() + LEAVING_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.01)
        else:
            return True


class Turn:
    """A place in the line, from its making to `leave`. Where the file may not be written, the line is none."""

    def __init__(self, path: "Path | str") -> None:
        self.path = path
        self.ticket = 0
        self.descriptor = self.enter()

    def enter(self) -> int:
        """Draw a ticket; the file's descriptor, -1 without a line."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                descriptor = open_shared(self.path)
            except PermissionError:
                return -1
            if self.draw(descriptor):
                return descriptor
            os.close(descriptor)
            time.sleep(0.01)
        return -1

    def draw(self, descriptor: int) -> bool:
        """False where somebody else draws, or the file has just been removed."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # apart from the locks on its bytes
        except BlockingIOError:
            return False
        try:
            held = os.fstat(descriptor)
            if not stat.S_ISREG(held.st_mode) or held.st_nlink != 1:
                raise FileNotFoundError("{} is not a plain file; remove it".format(self.path))
            text = os.pread(descriptor, DIGITS, 0)
            self.ticket = int(text) % 2**48 if text.isdigit() else 0
            if not is_current(descriptor, self.path):
                return False
            while not self.lock(descriptor, fcntl.LOCK_EX, self.ticket, 1):
                self.ticket += 1
            os.pwrite(descriptor, str(self.ticket + 1).zfill(DIGITS).encode(), 0)
        except OSError as error:
            if error.errno != errno.EBADF:  # somebody else's file that we may only read: without a line
                raise
            self.ticket = 0
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        return True

    def lock(self, descriptor: int, how: int, start: int, length: int) -> bool:
        try:
            fcntl.lockf(descriptor, how | fcntl.LOCK_NB, length, start)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            return False
        return True

    def has_come(self) -> bool:
        """Whether nobody who came before still waits."""
        if self.descriptor < 0 or not self.ticket:
            return True
        first = self.lock(self.descriptor, fcntl.LOCK_SH, 0, self.ticket)
        if first:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, self.ticket, 0)
        return first

    def leave(self) -> None:
        """Give the place up; the last one removes the file."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor < 0:
            return
        try:
            # Who leaves at the same time sees our byte still locked, and leaves the file to us: so we wait for it.
            if (
                await_flock(descriptor)
                and self.lock(descriptor, fcntl.LOCK_EX, 0, 0)
                and is_current(descriptor, self.path)
            ):
                os.unlink(str(self.path))
        except OSError as error:
            if error.errno not in TAKEN + (errno.EBADF, errno.EPERM, errno.ENOENT):
                raise
        finally:
            os.close(descriptor)
