"""Statistics against values worked out by hand, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.measure.statistics import interval, median_share, modes, quantile_interval, summarize


def test_figures_of_one_to_two_hundred() -> None:
    latency = summarize([float(value) for value in range(200, 0, -1)], warmup_runs=7, converged=True)
    assert (latency.samples, latency.min_ms, latency.max_ms, latency.warmup_runs) == (200, 1.0, 200.0, 7)
    assert latency.mean_ms == 100.5
    assert latency.std_ms == pytest.approx(math.sqrt(200 * 201 / 12))  # of 1 ... n with divisor n - 1
    assert latency.percentile_ms == pytest.approx({"p50": 100.5, "p90": 180.1, "p95": 190.05})
    # In time, ten batches of 10 above 100, ten below: shares 0 and 10, a line of slope 500 / 665, squares of the rest
    # 124.06, neighbours 0.577 alike: r = 0.477; 2.10092 sqrt(124.06 / 18 / 10^2 (1 + r) / (1 - r) / 20) = 0.2073;
    # ranks 200 (0.5 - 0.2073) = 58.5 and 200 (0.5 + 0.2073) + 1 = 142.5
    assert (latency.lower_ms["p50"], latency.upper_ms["p50"]) == (59.0, 142.0)
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


def series(random: np.random.Generator, count: int, dependence: float, drift: float) -> np.ndarray:
    """Log-normal latencies (5 %) with the median 1 + drift / 2: each depends on the one before, all grow with time."""
    noise = 0.05 * math.sqrt(1 - dependence**2) * random.normal(size=count + 100)
    logs = np.empty(count + 100)
    logs[0] = noise[0]
    for index in range(1, count + 100):
        logs[index] = dependence * logs[index - 1] + noise[index]
    return np.exp(logs[100:]) * (1 + drift * np.linspace(0, 1, count))


@pytest.mark.parametrize(("dependence", "drift"), [(0.0, 0.0), (0.0, 0.05), (0.7, 0.0), (0.7, 0.05)])
def test_interval_of_the_median_covers_under_dependence_and_drift(dependence: float, drift: float) -> None:
    random = np.random.default_rng(7)
    hits = plain = 0
    repeats = 400
    for _ in range(repeats):
        values = series(random, 600, dependence, drift)
        low, high = interval(values, np.sort(values), 0.5)
        assert low is not None
        assert high is not None
        hits += low <= 1 + drift / 2 <= high
        low, high = quantile_interval(np.sort(values), 0.5)
        plain += low <= 1 + drift / 2 <= high
    assert 0.92 <= hits / repeats <= 0.98
    if dependence:
        assert plain / repeats < 0.85  # what order statistics alone would have claimed


def test_an_interval_never_reaches_beyond_what_the_samples_give() -> None:
    values = np.random.default_rng(8).lognormal(size=662)
    latency = summarize(values, warmup_runs=3, converged=True)
    assert latency.upper_ms["p99"] <= latency.max_ms
    assert latency.lower_ms["p99"] < latency.percentile_ms["p99"]


def test_two_states_of_the_device_are_told_apart() -> None:
    random = np.random.default_rng(9)
    slow = random.random(1000) < 0.3
    values = np.where(slow, 1.4, 1.0) * random.lognormal(0, 0.02, 1000)
    found = modes(values)
    assert found is not None
    assert (found.low_ms, found.high_ms) == (pytest.approx(1.0, rel=0.01), pytest.approx(1.4, rel=0.01))
    assert (found.low_share, found.high_share) == (pytest.approx(1 - slow.mean()), pytest.approx(slow.mean()))


@pytest.mark.parametrize("kind", ["normal", "uniform", "skewed", "outliers", "constant", "few"])
def test_one_state_is_not_taken_for_two(kind: str) -> None:
    random = np.random.default_rng(10)
    values = {
        "normal": 1 + 0.1 * random.normal(size=1000),
        "uniform": 1 + random.random(1000),
        "skewed": 1 + random.exponential(size=1000),
        "outliers": np.where(random.random(1000) < 0.02, 3.0, 1 + 0.01 * random.normal(size=1000)),
        "constant": np.full(1000, 2.0),
        "few": np.array([1.0, 2.0] * 20),
    }[kind]
    assert modes(values) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-3, 1e4), min_size=6, max_size=300), st.floats(0.5, 20))
def test_scaling_the_samples_scales_every_figure(samples: list[float], factor: float) -> None:
    one = summarize(samples, warmup_runs=3, converged=True)
    other = summarize([factor * value for value in samples], warmup_runs=3, converged=True)
    assert other.percentile_ms == pytest.approx({name: factor * value for name, value in one.percentile_ms.items()})
    assert other.upper_ms == pytest.approx({name: factor * value for name, value in one.upper_ms.items()})
    assert all(one.min_ms <= value <= one.max_ms for value in one.percentile_ms.values())


def test_median_share_is_the_wider_side() -> None:
    latency = summarize([*[10.0] * 40, *[20.0] * 50], warmup_runs=3, converged=True)
    assert latency.percentile_ms["p50"] == 20.0
    assert median_share(latency) == 0.5
