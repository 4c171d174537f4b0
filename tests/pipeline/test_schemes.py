"""Which int8 scheme is chosen: by the device's figures, and never one that it computes otherwise."""

from __future__ import annotations

import pytest

from edgeprune.errors import UsageError
from edgeprune.pipeline.schemes import Tried, _why, chosen


def tried(scheme: str, accuracy: float, ratio: float, spread: float = 0.01, refused: str = "") -> Tried:
    return Tried(scheme, accuracy, 0.9, 35.0, 1000, ratio, ratio - spread, ratio + spread, 0.001, refused)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (tried("a", 0.896, 0.5), tried("b", 0.899, 0.6), "a"),  # both keep the accuracy: the faster
        (tried("a", 0.870, 0.5), tried("b", 0.899, 0.6), "b"),  # the faster one loses 3 pp
        (tried("a", 0.896, 0.5, 0.06), tried("b", 0.899, 0.52, 0.06), "b"),  # not told apart: the more accurate
        (tried("a", 0.5, 0.5), tried("b", 0.6, 0.7), "b"),  # neither keeps it: what loses less
        (tried("a", 0.9, 0.5, refused="garbage"), tried("b", 0.899, 0.9), "b"),
    ],
)
def test_the_fastest_that_keeps_the_accuracy(first: Tried, second: Tried, wanted: str) -> None:
    assert chosen([first, second]).scheme == wanted
    assert chosen([second, first]).scheme == wanted


def test_an_accuracy_that_is_kept_has_no_sign() -> None:
    assert _why(tried("a", 0.9, 0.5)) == ": 0.500 of the float model's latency, accuracy +0.00 pp"
    assert _why(tried("a", 0.89, 0.5)).endswith("accuracy -1.00 pp")


def test_where_all_are_out_the_reasons_are_told() -> None:
    with pytest.raises(UsageError, match="a: the device computes otherwise; b: no kernel"):
        chosen([Tried("a", refused="the device computes otherwise"), Tried("b", refused="no kernel")])
