"""Lines of JSON to the host, and the error that ends a measurement with a name."""

import json
import os
import threading

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from typing import Any

PROTOCOL = 1
CHUNK = 500  # samples in one line
HEARTBEAT_S = 5.0
STDERR_TAIL = 2000
OUT_OF_MEMORY = ("out of memory", "failed to allocate", "bad_alloc", "bad allocation", "cannot allocate memory")


class OutcomeError(Exception):
    """A measurement ended with a named outcome other than OK."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Frames:
    """JSON lines to a file descriptor; safe from several threads."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lock = threading.Lock()

    def send(self, **frame: "Any") -> None:
        data = json.dumps(frame, separators=(",", ":")).encode() + b"\n"
        with self.lock:
            while data:
                data = data[os.write(self.descriptor, data) :]


def claim_stdout() -> Frames:
    """Frames on the real stdout; whatever else prints goes to stderr from now on."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return Frames(descriptor)
