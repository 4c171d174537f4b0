"""When the agent has measured enough: the interval about the median."""

from __future__ import annotations

from array import array

from edgeprune.agent.device.intervals import median_settled


def test_median_settles_by_its_interval() -> None:
    narrow = array("q", range(10_000, 10_100))
    # ranks int((100 - 19.6) / 2) = 40 and 61 about the median of rank 51: 10 of 10050 away
    assert median_settled(narrow, 0.00111)
    assert not median_settled(narrow, 0.00109)
    assert not median_settled(array("q", [5, 5, 5]), 1.0)  # three runs have no interval
