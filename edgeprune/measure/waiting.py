"""Waiting for a device that somebody else measures on, as progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from edgeprune.progress import Progress, Step

__all__ = ["waiting"]


@contextmanager
def waiting(name: str, limit_s: float, progress: Progress) -> Iterator[Callable[[str], None]]:
    """Gives what is called with the owner, again and again while the device is locked: a step that counts seconds."""
    with ExitStack() as stack:
        step: Step | None = None
        started, counted = 0.0, 0

        def wait(owner: str) -> None:
            nonlocal step, started, counted
            if step is None:
                progress.say(
                    f"{name} is being measured on by {owner}, and a run keeps its device until it ends; "
                    f"waiting for at most {limit_s:g} s"
                )
                started = time.monotonic()
                step = stack.enter_context(progress.step(f"waiting for {name} (seconds)", round(limit_s)))
            passed = int(time.monotonic() - started)
            step.advance(passed - counted, f"held by {owner}")
            counted = passed

        yield wait
