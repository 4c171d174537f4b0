"""Programs that the agent starts; `subprocess` would take a megabyte of the device's memory while it measures."""

import os
import select
import signal
import time


class Process:
    """A running program: descriptors of its stdin, stdout and stderr are the caller's to close, `kill` ends it.

    `returncode` is the exit status, or less than 0 for a signal, or None before `wait` or `kill` saw the end.
    """

    def __init__(self, command: "list[str]") -> None:
        self.returncode = None  # type: int | None
        (stdin, self.stdin), (self.stdout, stdout), (self.stderr, stderr) = os.pipe(), os.pipe(), os.pipe()
        inner = (stdin, stdout, stderr)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number, descriptor in enumerate(inner):
                    os.dup2(descriptor, number)  # all others close themselves (PEP 446)
                os.execv(command[0], command)  # noqa: S606 - a list, no shell
            finally:
                os._exit(127)
        for descriptor in inner:
            os.close(descriptor)

    def reap(self, options: int) -> None:
        found, status = os.waitpid(self.pid, options)
        if found:
            self.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def wait(self, timeout_s: float) -> "int | None":
        """The end's code; None where it still runs after that time."""
        end, pause = time.monotonic() + timeout_s, 0.0005
        while True:
            if self.returncode is None:
                self.reap(os.WNOHANG)
            if self.returncode is not None or time.monotonic() >= end:
                return self.returncode
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def kill(self) -> None:
        """At once, where it has not ended yet."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            self.reap(0)


def output_of(command: "list[str]", timeout_s: float) -> str:
    """What a program with no input prints; "" where it fails or takes longer."""
    process = Process(command)
    os.close(process.stdin)
    said, streams, end = b"", [process.stdout, process.stderr], time.monotonic() + timeout_s
    try:
        while streams:
            ready = select.select(streams, [], [], max(0.0, end - time.monotonic()))[0]
            if not ready:
                return ""
            for stream in ready:
                data = os.read(stream, 1 << 16)
                said += data if stream == process.stdout else b""
                if not data:
                    streams.remove(stream)
        return said.decode("utf-8", "replace") if process.wait(end - time.monotonic()) == 0 else ""
    finally:
        process.kill()
        os.close(process.stdout)
        os.close(process.stderr)
