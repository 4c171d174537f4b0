"""Progress on stderr: bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from edgeprune.progress import Progress, Step

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

__all__ = ["PlainProgress", "open_progress"]

_EVERY_S = 10.0  # how often a long step says where it is, in plain lines


@contextmanager
def open_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Progress for the length of the context: drawn where `stream` (stderr) is a terminal, plain lines otherwise."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainProgress(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        yield _RichProgress(bars)


class PlainProgress:
    """Lines: each finished step with its seconds, and long steps now and then."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock

    @contextmanager
    def step(self, description: str, total: int | None = None) -> Iterator[Step]:
        """A step; a line when it is done, and every ten seconds where it says how far it is."""
        started = self._clock()
        step = _PlainStep(self, description, total, started)
        try:
            yield step
        except BaseException:
            self.say(f"{description}: stopped after {self._clock() - started:.1f} s")
            raise
        note = f", {step.note}" if step.note else ""
        self.say(f"{description}: {self._clock() - started:.1f} s{note}")

    def say(self, message: str) -> None:
        """A line."""
        self._stream.write(message + "\n")
        self._stream.flush()

    def now(self) -> float:
        """Seconds, of a clock that only goes forward."""
        return self._clock()


@dataclass(slots=True)
class _PlainStep:
    progress: PlainProgress
    description: str
    total: int | None
    last: float
    done: int = 0
    note: str = ""

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        now = self.progress.now()
        if now - self.last >= _EVERY_S:
            self.last = now
            of = "" if self.total is None else f"/{self.total}"
            self.progress.say(f"{self.description}: {self.done}{of}" + (f", {self.note}" if self.note else ""))


class _RichProgress:
    def __init__(self, bars: RichBars) -> None:
        self._bars = bars

    @contextmanager
    def step(self, description: str, total: int | None = None) -> Iterator[Step]:
        task = self._bars.add_task(description, total=total, note="")
        try:
            yield _RichStep(self._bars, task)
        finally:
            self._bars.remove_task(task)

    def say(self, message: str) -> None:
        self._bars.console.print(message, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _RichStep:
    bars: RichBars
    task: TaskID

    def advance(self, amount: int = 1, note: str = "") -> None:
        if note:
            self.bars.update(self.task, advance=amount, note=note)
        else:
            self.bars.update(self.task, advance=amount)
