"""When the dense model is due again, and what counts as a drift."""

from __future__ import annotations

import pytest

from edgeprune.measure.sentinel import Sentinel, drift
from edgeprune.records.measurement import Latency, Measurement, Outcome


def measured(p50: float, half: float = 0.01) -> Measurement:
    latency = Latency(200, p50, 0.0, p50, p50, {"p50": p50}, {"p50": p50 - half}, {"p50": p50 + half})
    return Measurement("0" * 64, Outcome.OK, None, latency=latency)


def test_due_after_so_many_trials() -> None:
    sentinel = Sentinel(every_trials=3, every_s=1e9)
    sentinel.dense_measured()
    assert sentinel.is_due()  # once soon: all relative limits stand on the first measurement
    sentinel.dense_measured()
    assert [sentinel.is_due() for _ in range(3)] == [False, False, True]
    sentinel.dense_measured()
    assert not sentinel.is_due()


def test_due_after_so_much_time() -> None:
    now = [0.0]
    sentinel = Sentinel(every_trials=100, every_s=60, clock=lambda: now[0], first_trials=100)
    sentinel.dense_measured()
    now[0] = 59
    assert not sentinel.is_due()
    now[0] = 60
    assert sentinel.is_due()


def test_due_at_once_where_a_run_is_resumed() -> None:
    assert Sentinel().is_due()


@pytest.mark.parametrize(
    ("now", "half", "drifted"),
    [
        (1.00, 0.01, False),
        (1.08, 0.01, True),
        (0.92, 0.01, True),
        (1.04, 0.001, False),  # certain, but as fresh processes differ
        (1.08, 0.10, False),  # the intervals overlap
    ],
)
def test_a_drift_is_beyond_both_intervals_and_noise(now: float, half: float, drifted: bool) -> None:
    found = drift(measured(1.0, half), measured(now, half))
    assert found is not None
    assert found.drifted is drifted
    assert found.ratio == pytest.approx(now)
    assert (found.lower, found.upper) == (
        pytest.approx((now - half) / (1 + half)),
        pytest.approx((now + half) / (1 - half)),
    )


def test_no_latency_is_no_drift() -> None:
    lost = Measurement("0" * 64, Outcome.LOST, None, message="gone")
    assert drift(measured(1.0), lost) is None
    assert drift(lost, measured(1.0)) is None
