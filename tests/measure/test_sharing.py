"""One device, several users: who waits, and for whom."""

from __future__ import annotations

import io
import os
import re
import threading
from types import SimpleNamespace

import pytest

from edgeprune.cli.progress import PlainProgress
from edgeprune.errors import TargetError
from edgeprune.measure.session import Session
from edgeprune.measure.waiting import waiting
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Outcome
from edgeprune.targets.local import LocalTarget
from tests.measure.quick import BOARD


def test_busy_device_refuses_a_second_session(small: Artifact) -> None:
    with Session(LocalTarget(), BOARD) as first:
        with (
            pytest.raises(TargetError, match=r"being measured on by .+@") as caught,
            Session(LocalTarget(), BOARD, wait_s=0),
        ):
            pass
        assert caught.value.outcome == "BUSY"
        assert caught.value.exit_code == 3
        assert first.measure(small).outcome is Outcome.OK


def test_waiting_for_the_device_is_said() -> None:
    said = io.StringIO()
    first = Session(LocalTarget(), BOARD)
    first.__enter__()
    threading.Timer(1.0, first.__exit__, (None, None, None)).start()
    with Session(LocalTarget(), BOARD, wait_s=30, progress=PlainProgress(said)) as second:
        assert second.machine["cpus"] == os.cpu_count()
    lines = said.getvalue().splitlines()
    owner = r"\S+@\S+ \(process \d+\)"
    assert re.fullmatch(
        rf"local is being measured on by {owner}, and a run keeps .*; waiting for at most 30 s", lines[0]
    )
    assert re.fullmatch(rf"waiting for local \(seconds\): \d+\.\d s, held by {owner}", lines[1])
    assert len(lines) == 2


def test_the_time_of_waiting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("edgeprune.measure.waiting.time", SimpleNamespace(monotonic=lambda: now))
    said = io.StringIO()
    with waiting("board", 600, PlainProgress(said, clock=lambda: now)) as wait:
        for now in (100.0, 105.3, 110.6, 121.0):  # noqa: B007
            wait("ada@lab (process 7)")
    assert said.getvalue().splitlines()[1:] == [
        "waiting for board (seconds): 10/600, held by ada@lab (process 7)",
        "waiting for board (seconds): 21/600, held by ada@lab (process 7)",
        "waiting for board (seconds): 21.0 s, held by ada@lab (process 7)",
    ]
