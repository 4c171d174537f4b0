"""What the intervals of two measurements say of the change between them."""

from __future__ import annotations

import pytest

from edgeprune.records.difference import Pair, compared, pairs
from edgeprune.records.figures import Figure


@pytest.mark.parametrize(
    ("name", "a", "b", "change", "verdict"),
    [
        ("latency.p50", (9.8, 10.0, 10.2), (4.9, 5.0, 5.1), 0.5, "faster"),
        ("latency.p50", (4.9, 5.0, 5.1), (9.8, 10.0, 10.2), 2.0, "slower"),
        ("latency.p50", (9.0, 10.0, 11.0), (10.5, 12.0, 13.0), 1.2, "no difference"),  # they overlap
        ("latency.p50", (9.99, 10.0, 10.01), (10.29, 10.3, 10.31), 1.03, "no difference"),  # as any two processes
        ("peak_memory", (999.0, 1000.0, 1001.0), (1004.0, 1005.0, 1006.0), 1.005, "no difference"),
        ("peak_memory", (999.0, 1000.0, 1001.0), (899.0, 900.0, 901.0), 0.9, "less"),
        ("energy", (9.9, 10.0, 10.1), (10.2, 10.3, 10.4), 1.03, "more"),
    ],
)
def test_measured_figures(
    name: str, a: tuple[float, float, float], b: tuple[float, float, float], change: float, verdict: str
) -> None:
    found = compared(name, (Figure(a[1], a[2]), a[0]), (Figure(b[1], b[2]), b[0]))
    assert found.change == pytest.approx(change)
    assert found.verdict == verdict
    assert found.interval == pytest.approx((b[0] / a[2], b[2] / a[0]))


def test_size_and_accuracy_are_exact() -> None:
    assert compared("size", (Figure(100.0), None), (Figure(50.0), None)).verdict == "less"
    assert compared("size", (Figure(100.0), None), (Figure(100.0), None)).verdict == "no difference"
    accuracy = compared("accuracy", (Figure(0.9), None), (Figure(0.89), None), comparable=False)
    assert (accuracy.change, accuracy.verdict) == (pytest.approx(-0.01), "lower")
    assert compared("accuracy", (Figure(0.9), None), (Figure(0.91), None)).verdict == "higher"


def test_what_tells_nothing_has_no_verdict() -> None:
    whole = (Figure(10.0, 10.1), 9.9)
    for other, reason in (
        ((Figure(5.0, 5.1), None), "an interval is not known"),
        ((Figure(5.0, None), 4.9), "an interval is not known"),
        ((Figure(None, missing="CRASHED"), None), "not in both"),
        ((None, None), "not in both"),
    ):
        found = compared("latency.p50", whole, other)
        assert (found.verdict, found.reason, found.interval) == ("", reason, None)
    elsewhere = compared("latency.p50", whole, whole, comparable=False)
    assert (elsewhere.verdict, elsewhere.reason) == ("", "measured on other devices")
    assert compared("energy", (Figure(0.0, 0.1), -0.1), whole).reason == "no ratio to what is not more than 0"


def test_pairs_hold_only_what_differs() -> None:
    a, b = {"seed": 0, "epochs": 2, "only a": 1}, {"seed": 0, "epochs": 3, "only b": 2}
    assert pairs(a, b) == (Pair("epochs", 2, 3), Pair("only a", 1, None), Pair("only b", None, 2))
    assert pairs(a, b, common=True) == (Pair("epochs", 2, 3),)
