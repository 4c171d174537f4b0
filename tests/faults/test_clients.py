"""A dozen real clients on one device; `scripts/bench/clients.py` does it with a hundred."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "scripts/bench/clients.py"))


@pytest.mark.parametrize(("wait_s", "hold_s"), [(300.0, 0.1), (0.0, 30.0)])
def test_clients_take_turns_or_are_busy_and_leave_nothing(wait_s: float, hold_s: float) -> None:
    count = 6
    found = BENCH["clients"](count, wait_s=wait_s, hold_s=hold_s)
    assert found["outcomes"] == ({"OK": count} if wait_s else {"OK": 1, "BUSY": count - 1})
    assert found["overlapping_turns"] == 0
    assert (found["processes_left"], found["files_left"]) == ([], [])
