"""An eye on the device while something is measured: says that work goes on, notes every sign of throttling."""

import time

from .conditions import Signs, conditions, throttle_reason
from .frames import HEARTBEAT_S, Frames
from .system import clock_ns

TYPE_CHECKING = False  # typing and pathlib would take a megabyte of the device's memory
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


class Watch:
    """From its making to `end`; `beat` is called often and does its work every HEARTBEAT_S."""

    def __init__(self, out: Frames, root: "Path | str", number: "Any", stage: str) -> None:
        self.out = out
        self.root = root
        self.number = number
        self.stage = stage
        self.before = conditions(root)
        self.after = self.before
        self.signs = Signs(root, self.before)
        self.trace = []  # type: list[dict[str, Any]]
        self.started = self.last = time.monotonic()
        self.told = 0.0

    def beat(self) -> None:
        now = time.monotonic()
        if now - self.last < HEARTBEAT_S:
            return
        self.last = now
        self.signs.look(loaded=self.stage == "latency")
        self.out.send(type="heartbeat", id=self.number, stage=self.stage, elapsed_s=now - self.started)

    def beat_with_trace(self) -> None:
        """The same, and notes temperature, clock and throttling over time."""
        last = self.last
        self.beat()
        if self.last != last:
            seen = conditions(self.root)
            self.trace.append(
                {
                    "at_s": self.last - self.started,
                    "temperature_c": max(seen["temperature_c"].values(), default=None),
                    "frequency_khz": max(seen["frequency_khz"].values(), default=None),
                    "throttled": throttle_reason(self.before, seen, seen["cooling"]),
                }
            )

    def beat_with_clock(self) -> None:
        """The same, and tells the device's time to the host, for a meter that is read there."""
        if time.monotonic() - self.told >= 1:
            self.told = time.monotonic()
            self.out.send(type="clock", id=self.number, ns=clock_ns())
        self.beat()

    def cooling(self, stage: str) -> None:
        """While the host waits for the device to cool."""
        self.stage = stage
        self.beat()

    def end(self) -> str:
        """Why what was measured must not count, or ""."""
        self.after = conditions(self.root)
        return self.signs.reason(self.after)

    def conditions(self) -> "dict[str, Any]":
        """For the record, after `end`."""
        return {"before": self.before, "during": self.signs.during(), "after": self.after}
