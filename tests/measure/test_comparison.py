"""Comparisons: values by hand, and how often two equal things are told to be equal."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeprune.measure.comparison import judged


def workers(random: np.random.Generator, ratio: float, count: int = 8, pairs: int = 25) -> list[list[list[float]]]:
    """Processes that lie differently in memory (1 %), blocks that vary (2 %), a device that slows down by 3 %."""
    found = []
    for _ in range(count):
        lie = np.exp(0.01 * random.normal(size=2))
        drift = np.linspace(1, 1.03, pairs)[:, None]
        blocks = np.exp(0.02 * random.normal(size=(pairs, 2))) * drift * lie * [ratio, 1.0]
        found.append(blocks.tolist())
    return found


def test_ratio_and_interval_by_hand() -> None:
    pairs = [[[2.0, 1.0]], [[4.0, 1.0]], [[8.0, 1.0]]]  # logarithms 1, 2, 3 times log 2: mean 2, deviation 1
    ratio, lower, upper, verdict = judged(pairs)
    half = 4.302653 / math.sqrt(3)  # Student, 2 degrees
    assert ratio == pytest.approx(4.0)
    assert (lower, upper) == (pytest.approx(2 ** (2 - half), rel=1e-5), pytest.approx(2 ** (2 + half), rel=1e-5))
    assert verdict == "no difference"


def test_the_median_of_the_pairs_stands_for_a_worker() -> None:
    pairs = [[[1.1, 1.0], [1.2, 1.0], [9.0, 1.0]]] * 3
    assert judged(pairs) == (pytest.approx(1.2), pytest.approx(1.2), pytest.approx(1.2), "slower")


def test_equal_things_are_told_to_be_equal() -> None:
    random = np.random.default_rng(0)
    verdicts = [judged(workers(random, 1.0))[3] for _ in range(500)]
    assert verdicts.count("no difference") / len(verdicts) >= 0.97


def test_the_interval_covers_the_ratio() -> None:
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(500):
        _, lower, upper, _ = judged(workers(random, 0.9))
        hits += lower <= 0.9 <= upper
    assert 0.92 <= hits / 500 <= 0.98


@pytest.mark.parametrize(("ratio", "verdict"), [(0.95, "faster"), (1.05, "slower")])
def test_five_percent_are_seen(ratio: float, verdict: str) -> None:
    random = np.random.default_rng(2)
    verdicts = [judged(workers(random, ratio))[3] for _ in range(100)]
    assert verdicts.count(verdict) >= 95


def test_what_is_certain_but_too_small_to_matter_is_no_difference() -> None:
    assert judged([[[1.004, 1.0]]] * 8)[3] == "no difference"
    assert judged([[[1.006, 1.0]]] * 8)[3] == "slower"
