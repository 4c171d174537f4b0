"""Statistics against values worked out by hand, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.measure.statistics import median_share, quantile_interval, summarize


def test_figures_of_one_to_two_hundred() -> None:
    latency = summarize([float(value) for value in range(200, 0, -1)], warmup_runs=7, converged=True)
    assert (latency.samples, latency.min_ms, latency.max_ms, latency.warmup_runs) == (200, 1.0, 200.0, 7)
    assert latency.mean_ms == 100.5
    assert latency.std_ms == pytest.approx(math.sqrt(200 * 201 / 12))  # of 1 ... n with divisor n - 1
    assert latency.percentile_ms == pytest.approx({"p50": 100.5, "p90": 180.1, "p95": 190.05})
    # Binomial(200, 1/2): P(B <= 85) = 0.0200, P(B <= 86) = 0.0280; symmetric, so rank 86 and 200 + 1 - 86 = 115
    assert (latency.lower_ms["p50"], latency.upper_ms["p50"]) == (86.0, 115.0)
    # Binomial(200, 0.95): P(B <= 183) = 0.0238, P(B <= 184) = 0.0444; P(B >= 197) = 0.0090, P(B >= 196) = 0.0264
    assert (latency.lower_ms["p95"], latency.upper_ms["p95"]) == (184.0, 197.0)
    assert latency.refused == {"p99": "p99 needs 662 runs, only 200 were timed"}
    assert latency.raw_ms[:2] == (200.0, 199.0)


def test_mean_interval_of_few_runs_is_students() -> None:
    latency = summarize([1.0, 2.0, 3.0, 4.0, 5.0], warmup_runs=3, converged=False)
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)  # t(4 degrees, 0.975)
    assert latency.upper_ms == {"mean": pytest.approx(3 + half)}
    assert latency.lower_ms == {"mean": pytest.approx(3 - half)}
    assert set(latency.refused) == {"p50", "p90", "p95", "p99"}


def test_single_run_has_no_interval() -> None:
    latency = summarize([2.5], warmup_runs=3, converged=False)
    assert (latency.mean_ms, latency.std_ms, latency.upper_ms) == (2.5, 0.0, {})
    assert median_share(latency) == math.inf


def test_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarize([], warmup_runs=3, converged=False)


@pytest.mark.parametrize(("name", "least"), [("p50", 6), ("p90", 64), ("p95", 130), ("p99", 662)])
def test_percentiles_from_their_honest_count_on(name: str, least: int) -> None:
    enough = summarize(np.arange(1.0, least + 1), warmup_runs=3, converged=True)
    assert name in enough.percentile_ms
    assert enough.lower_ms[name] <= enough.percentile_ms[name] <= enough.upper_ms[name]
    short = summarize(np.arange(1.0, least), warmup_runs=3, converged=True)
    assert name in short.refused
    assert name not in short.percentile_ms
    assert name not in short.upper_ms


@pytest.mark.parametrize(("level", "least"), [(0.90, 64), (0.95, 130), (0.99, 662)])
def test_honest_counts_are_wilks_second_order(level: float, least: int) -> None:
    """The count from which the second largest sample exceeds the quantile with 99 % probability."""

    def confidence(count: int) -> float:
        return 1 - level**count - count * (1 - level) * level ** (count - 1)

    assert confidence(least - 1) < 0.99 <= confidence(least)


def test_an_end_that_the_samples_cannot_give_is_none() -> None:
    assert quantile_interval([1.0, 2.0, 3.0, 4.0, 5.0], 0.5) == (None, None)
    assert quantile_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.5) == (1.0, 6.0)
    assert quantile_interval(range(1, 64), 0.95)[1] is None


@pytest.mark.parametrize(("level", "count"), [(0.5, 40), (0.9, 64), (0.95, 130), (0.95, 400)])
def test_intervals_cover_the_quantile(level: float, count: int) -> None:
    """At least 95 % of the intervals hold the true quantile, each end misses at most 2.5 %; skewed data."""
    random = np.random.default_rng(5)
    true = math.exp({0.5: 0.0, 0.9: 1.2815515655446004, 0.95: 1.6448536269514722}[level])  # normal quantiles
    low_misses = high_misses = 0
    repeats = 4000
    for sample in np.sort(random.lognormal(size=(repeats, count)), axis=1):
        low, high = quantile_interval(sample, level)
        assert low is not None
        assert high is not None
        low_misses += low > true
        high_misses += high < true
    margin = 3 * math.sqrt(0.025 * 0.975 / repeats)
    assert low_misses / repeats <= 0.025 + margin
    assert high_misses / repeats <= 0.025 + margin
    assert (low_misses + high_misses) / repeats >= 0.01  # and they are not needlessly wide


def test_mean_interval_covers_with_dependent_runs() -> None:
    """Autocorrelated latencies (AR(1), 0.5): batch means keep what a plain t interval would lose."""
    random = np.random.default_rng(6)
    repeats, count = 600, 1000
    hits = plain_hits = 0
    noise = random.normal(size=(repeats, count + 50))
    for row in noise:
        series = np.empty_like(row)
        series[0] = row[0]
        for index in range(1, len(row)):
            series[index] = 0.5 * series[index - 1] + row[index]
        values = 100 + series[50:]
        latency = summarize(values, warmup_runs=3, converged=True)
        hits += latency.lower_ms["mean"] <= 100 <= latency.upper_ms["mean"]
        plain = 1.96 * values.std(ddof=1) / math.sqrt(count)
        plain_hits += abs(values.mean() - 100) <= plain
    assert hits / repeats >= 0.92
    assert plain_hits / repeats < 0.80


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-3, 1e4), min_size=6, max_size=300), st.floats(0.5, 20))
def test_scaling_the_samples_scales_every_figure(samples: list[float], factor: float) -> None:
    one = summarize(samples, warmup_runs=3, converged=True)
    other = summarize([factor * value for value in samples], warmup_runs=3, converged=True)
    assert other.percentile_ms == pytest.approx({name: factor * value for name, value in one.percentile_ms.items()})
    assert other.upper_ms == pytest.approx({name: factor * value for name, value in one.upper_ms.items()})
    assert all(one.min_ms <= value <= one.max_ms for value in one.percentile_ms.values())


def test_median_share_is_the_wider_side() -> None:
    latency = summarize([*[10.0] * 90, *[20.0] * 110], warmup_runs=3, converged=True)
    assert latency.percentile_ms["p50"] == 20.0
    assert median_share(latency) == 0.5
