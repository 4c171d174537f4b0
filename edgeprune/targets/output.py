"""What a short program says: its exit status and output, from a channel that knows when it has ended."""

from __future__ import annotations

import time
from typing import Protocol

from edgeprune.errors import TargetError
from edgeprune.targets.base import Channel

__all__ = ["EndingChannel", "collect"]

_LIMIT = 1 << 20


class EndingChannel(Channel, Protocol):
    """A channel whose program can be told that there is no more input, and that knows how it ended."""

    def end_input(self) -> None:
        """Close the program's stdin."""

    def status(self, timeout_s: float) -> int:
        """The exit status; raises TargetError (TIMEOUT, LOST)."""


def collect(channel: EndingChannel, name: str, timeout_s: float) -> tuple[int, bytes]:
    """`Target.run` on a program that has just been started; closes the channel."""
    end = time.monotonic() + timeout_s
    output = b""
    try:
        channel.end_input()
        while data := channel.receive(max(0.0, end - time.monotonic())):
            output += data
            if len(output) > _LIMIT:
                raise TargetError(f"{name}: a command printed more than {_LIMIT >> 20} MiB", outcome="LOST")
        code = channel.status(max(0.0, end - time.monotonic()))
    finally:
        channel.close()
    return code, output + channel.diagnostics.encode() if code else output
