"""Progress: plain lines where nobody watches, bars on a terminal, and nothing on stdout."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import sys

import pytest

from edgeprune.cli.progress import PlainProgress, open_progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_finished_step_is_one_line_with_its_seconds_and_last_note() -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainProgress(stream, clock).step("fine-tuning", 4) as step:
        for loss in (0.9, 0.5):
            clock.now += 1.5
            step.advance(note=f"loss {loss}")
    assert stream.getvalue() == "fine-tuning: 3.0 s, loss 0.5\n"


def test_a_long_step_says_where_it_is_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainProgress(stream, clock).step("training", 30) as step:
        for _ in range(30):
            clock.now += 1.0
            step.advance()
    assert stream.getvalue().splitlines() == [
        "training: 10/30",
        "training: 20/30",
        "training: 30/30",
        "training: 30.0 s",
    ]


def test_a_step_that_fails_says_that_it_stopped() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, Clock())
    with pytest.raises(ValueError, match="no"), progress.step("exporting"):
        raise ValueError("no")
    assert stream.getvalue() == "exporting: stopped after 0.0 s\n"


def test_without_a_terminal_nothing_is_drawn_and_rich_is_not_loaded() -> None:
    stream = io.StringIO()
    loaded = "rich.progress" in sys.modules
    with open_progress(stream) as progress:
        assert isinstance(progress, PlainProgress)
        progress.say("[red]trial 3[/red]: 0.41 ms")
    assert stream.getvalue() == "[red]trial 3[/red]: 0.41 ms\n"
    assert ("rich.progress" in sys.modules) == loaded


def all_of(leader: int) -> str:
    """What was written to a terminal until its other side was closed; it comes in pieces."""
    pieces = []
    with contextlib.suppress(OSError):  # EIO: closed
        while piece := os.read(leader, 1 << 20):
            pieces.append(piece)
    return b"".join(pieces).decode()


def test_on_a_terminal_bars_are_drawn_and_lines_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    leader, follower = pty.openpty()
    try:
        with os.fdopen(follower, "w") as terminal, open_progress(terminal) as progress:
            assert not isinstance(progress, PlainProgress)
            with progress.step("fine-tuning", 4) as outer, progress.step("epoch [1]") as inner:
                inner.advance(2, "loss 0.31")
                outer.advance()
            progress.say("trial 3: [0.41 ms]")
        drawn = all_of(leader)
    finally:
        os.close(leader)
    assert "trial 3: [0.41 ms]" in drawn
    assert "fine-tuning" in drawn
    assert "\x1b[" in drawn
