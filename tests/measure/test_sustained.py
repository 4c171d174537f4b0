"""Windows of a sustained measurement, from a device that slows down after 30 s."""

from __future__ import annotations

import pytest

from edgeprune.measure.sustained import sustained_warnings, windows


def test_a_device_that_slows_down() -> None:
    fast, slow = [10_000_000] * 3000, [15_000_000] * 2000  # 30 s of 10 ms, 30 s of 15 ms
    hot = "the kernel slows the processor to cool it (cpufreq-cpu0)"
    trace = [
        {"at_s": 2 + at, "temperature_c": 40.0 + at, "frequency_khz": 1800 if at < 30 else 1200,
         "throttled": hot if at >= 30 else ""}
        for at in (5, 15, 25, 35, 45, 55)
    ]  # fmt: skip
    found = windows(fast + slow, trace, pass_s=62.0)
    assert [window.start_s for window in found] == pytest.approx([0, 10, 20, 30, 40, 50])
    assert [window.p50_ms for window in found] == pytest.approx([10, 10, 10, 15, 15, 15])
    assert [window.runs for window in found] == [1000, 1000, 1000, 667, 667, 666]
    assert [window.temperature_c for window in found] == [45, 55, 65, 75, 85, 95]
    assert [window.frequency_khz for window in found] == [1800, 1800, 1800, 1200, 1200, 1200]
    assert [bool(window.throttled) for window in found] == [False] * 3 + [True] * 3
    assert sustained_warnings(found) == [
        "under load the median rose by 50.0%, from 10 ms to 15 ms in the end",
        f"the device throttled from 30 s of load on: {hot}",
    ]


def test_a_steady_device_is_not_warned_of() -> None:
    found = windows([1_000_000] * 5000, [], pass_s=6.0)
    assert len(found) == 2
    assert (found[0].temperature_c, found[0].frequency_khz, found[0].p95_ms) == (None, None, 1.0)
    assert sustained_warnings(found) == []


def test_a_run_longer_than_a_window_leaves_none_empty() -> None:
    found = windows([25_000_000_000, 1_000_000_000, 1_000_000_000], [], pass_s=27.0)
    assert [window.runs for window in found] == [1, 2]
    assert found[1].p95_ms is None
