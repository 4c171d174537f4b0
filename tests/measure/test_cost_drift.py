"""Operators timed on different days make one table only where the device was as fast."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeprune.records.operators import LinearSignature, MicroModel, OperatorTiming, TimingPolicy
from tests.measure.cost_sessions import LINEARS, FakeSession, opened, run


class Speedy(FakeSession):
    """A device on which an operator takes as many ns as its outputs, times its slowness."""

    def __init__(self, slowness: float) -> None:
        super().__init__()
        self.slowness = slowness

    def operators(
        self, models: Mapping[str, MicroModel], *, timing: TimingPolicy | None = None
    ) -> dict[str, OperatorTiming]:
        if models:
            self.asked.append(list(models))
        found = {}
        for key in models:
            ns = self.slowness * 1000.0 * int(key.partition("out_features=")[2].partition(" ")[0])
            found[key] = OperatorTiming(ns, None, ns, 40, (ns, ns))
        return found


def visit(session: FakeSession, folder: Path, signatures: list[LinearSignature], days: float) -> dict[str, Any]:
    """What is known after it, `days` after the first day; the cache is made anew as by another process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1e9 + 86_400 * days)
        found = run(session, opened(folder), signatures)
    return {
        key: (one.run_ns or 0) / int(key.partition("out_features=")[2].partition(" ")[0]) for key, one in found.items()
    }


def test_a_table_of_two_speeds_is_never_made(tmp_path: Path) -> None:
    first, second = Speedy(1.0), Speedy(1.14)
    assert set(visit(first, tmp_path, LINEARS[:40], 0).values()) == {1000.0}
    found = visit(second, tmp_path, LINEARS, 1)
    assert list(found.values()) == pytest.approx([1140.0] * 100)
    asked = [set(keys) for keys in second.asked]
    assert asked[0] == {one.key for one in LINEARS[35:40]}  # the longest of the first day's
    assert sorted(key for keys in asked[1:] for key in keys) == sorted(one.key for one in LINEARS)
    silent = Speedy(1.0)
    assert visit(silent, tmp_path, LINEARS, 2) == found  # all of one day: nothing to compare, nothing is timed
    assert silent.asked == []


def test_what_was_as_fast_is_not_timed_again(tmp_path: Path) -> None:
    visit(Speedy(1.0), tmp_path, LINEARS[:40], 0)
    second = Speedy(1.03)
    visit(second, tmp_path, LINEARS, 1)
    assert [len(keys) for keys in second.asked] == [5, 48, 12]
    third = Speedy(1.02)
    visit(third, tmp_path, LINEARS, 2)
    assert [len(keys) for keys in third.asked] == [10]  # five of each day


def test_visits_that_agree_are_left_though_the_device_is_slower_now(tmp_path: Path) -> None:
    visit(Speedy(1.0), tmp_path, LINEARS[:40], 0)
    found = visit(Speedy(1.0), tmp_path, LINEARS, 1)
    third = Speedy(1.5)
    assert visit(third, tmp_path, LINEARS, 2) == found
    assert [len(keys) for keys in third.asked] == [10]


def test_an_old_cache_of_two_speeds_is_mended(tmp_path: Path) -> None:
    """As was kept before visits were compared: two halves that disagree, of which one is as fast as now."""
    for session, days, part in ((Speedy(1.0), 0, LINEARS[:50]), (Speedy(1.2), 1, LINEARS[50:])):
        visit(session, tmp_path, part, days)
    third = Speedy(1.2)
    assert list(visit(third, tmp_path, LINEARS, 2).values()) == pytest.approx([1200.0] * 100)
    assert [len(keys) for keys in third.asked] == [10, 48, 2]


def test_a_visit_goes_on_for_minutes(tmp_path: Path) -> None:
    """A lost link and a resumed run compare nothing."""
    visit(Speedy(1.0), tmp_path, LINEARS[:40], 0)
    second = Speedy(1.14)
    visit(second, tmp_path, LINEARS, 5 / 1440)
    assert [len(keys) for keys in second.asked] == [48, 12]


def test_samples_that_tell_nothing_change_nothing(tmp_path: Path) -> None:
    visit(Speedy(1.0), tmp_path, LINEARS[:40], 0)
    unstable = FakeSession(unstable=1)
    found = visit(unstable, tmp_path, LINEARS, 1)
    assert [len(keys) for keys in unstable.asked] == [5, 48, 12]
    assert found[LINEARS[0].key] == 1000.0
