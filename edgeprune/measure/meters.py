"""External power meters that the host reads, in the host's time; the device's marks say which part of it counts.

A plug-in (entry point group `edgeprune.power_sensors`) is made with one text, the profile's `source`, and has `start`
and `stop`, as `Meter` says.
"""

from __future__ import annotations

import csv
import itertools
import math
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgeprune.errors import UsageError

__all__ = ["CommandMeter", "CsvMeter", "Meter", "MeterError", "device_times"]

_STEP_S = 0.05  # that the wall clock may be moved against the monotonic one while it is measured
_WAIT_S = 2.0  # for the last lines of a meter's program


class MeterError(Exception):
    """Why the meter's samples cannot be used."""


class Meter(Protocol):
    """What reads the meter. `stop` gives (Unix time in s, W), in order; it raises MeterError."""

    def start(self) -> None: ...

    def stop(self) -> Sequence[tuple[float, float]]: ...


class CsvMeter:
    """A file that the meter's own program writes: a header with `time` (Unix, s) and `power_w`, one line a sample."""

    def __init__(self, source: str) -> None:
        self._path = Path(source).expanduser()
        self._since = 0.0

    def start(self) -> None:
        self._since = time.time()
        if not self._path.is_file():
            raise MeterError(f"no such file: {self._path}")

    def stop(self) -> Sequence[tuple[float, float]]:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise MeterError(f"cannot read {self._path}: {error.strerror}") from error
        whole = text[: text.rfind("\n") + 1]  # the last line may be half written
        rows = csv.DictReader(whole.splitlines())
        if not {"time", "power_w"} <= set(rows.fieldnames or ()):
            raise MeterError(f"{self._path}: the first line is to name the columns time and power_w")
        samples = [_sample(row["time"], row["power_w"], str(self._path)) for row in rows]
        return [sample for sample in samples if sample[0] >= self._since - 1]


class CommandMeter:
    """A program that writes one line a sample: W, or Unix time in s and W with a comma between them.

    It is started without a shell, runs while the energy is measured, and is then ended.
    """

    def __init__(self, source: str) -> None:
        self._command = shlex.split(source)
        if not self._command:
            raise UsageError("the meter of kind 'command' has no program", hint="name it: source: 'meter-log --watts'")
        self._lines: list[tuple[float, str]] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, bufsize=1
            )
        except OSError as error:
            raise MeterError(f"cannot run {self._command[0]}: {error.strerror}") from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process is not None  # noqa: S101
        for line in self._process.stdout or ():
            self._lines.append((time.time(), line))

    def stop(self) -> Sequence[tuple[float, float]]:
        if self._process is None or self._reader is None:
            return []
        code = self._process.poll()
        self._process.terminate()
        try:
            self._process.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_WAIT_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        if code is not None:
            raise MeterError(f"{self._command[0]} ended by itself with exit status {code}")
        samples = []
        for arrived, line in self._lines:
            first, comma, second = line.strip().partition(",")
            samples.append(_sample(first if comma else str(arrived), second if comma else first, self._command[0]))
        return samples


def _sample(moment: str | None, watts: str | None, where: str) -> tuple[float, float]:
    try:
        sample = float(moment or ""), float(watts or "")
    except ValueError as error:
        raise MeterError(f"{where}: not a time and a power: {moment!r}, {watts!r}") from error
    if not all(map(math.isfinite, sample)):
        raise MeterError(f"{where}: not a time and a power: {moment!r}, {watts!r}")
    return sample


def device_times(
    samples: Sequence[tuple[float, float]], clocks: Sequence[Mapping[str, float]]
) -> tuple[list[int], list[float]]:
    """The samples in the device's time (ns), by what its clock said when (`ns`, `wall`, `monotonic` of the host, s).

    The least difference is that of the quickest message. Raises MeterError where the host's clock was set meanwhile,
    or the samples are not in order.
    """
    if not clocks:
        raise MeterError("the device told no time")
    steps = [clock["wall"] - clock["monotonic"] for clock in clocks]
    if max(steps) - min(steps) > _STEP_S:
        raise MeterError("this machine's clock was set while the energy was measured")
    offset = min(clock["wall"] - clock["ns"] / 1e9 for clock in clocks)
    times = [round((moment - offset) * 1e9) for moment, _ in samples]
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise MeterError("the meter's samples are not in the order of time")
    return times, [watts for _, watts in samples]
