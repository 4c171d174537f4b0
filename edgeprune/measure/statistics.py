"""Latency statistics that claim no more than the samples support.

Every percentile has a 95 % confidence interval from order statistics: distribution-free, ranks from the binomial
distribution (Hahn & Meeker, Statistical Intervals, 1991, section 5.2). A percentile is given only from the sample
count at which the second largest sample bounds it from above with 99 % confidence (Wilks 1941, second order): p90 from
64, p95 from 130, p99 from 662 runs. The mean's interval is Student's, over batch means, because neighbouring runs are
not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeprune.records.measurement import Latency

__all__ = ["PERCENTILES", "median_share", "quantile_interval", "summarize"]

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
_LEAST_RUNS = {"p50": 6, "p90": 64, "p95": 130, "p99": 662}  # 6: below, no interval of the median reaches 95 %
_ALPHA = 0.05
_BATCHES = 20
_RUNS_PER_BATCH = 10  # fewer, and the batch means are as dependent as the runs


def summarize(samples_ms: Sequence[float], *, warmup_runs: int, converged: bool) -> Latency:
    """Statistics of at least one run in ms, in the order in which they were timed; nothing is dropped."""
    values = np.asarray(samples_ms, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no samples")
    ordered = np.sort(values)
    percentiles: dict[str, float] = {}
    lower: dict[str, float] = {}
    upper: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, level in PERCENTILES.items():
        if values.size < _LEAST_RUNS[name]:
            refused[name] = f"{name} needs {_LEAST_RUNS[name]} runs, only {values.size} were timed"
            continue
        percentiles[name] = float(np.quantile(ordered, level))
        low, high = quantile_interval(ordered, level)
        if low is not None:
            lower[name] = low
        if high is not None:
            upper[name] = high
    half = _mean_half_width(values)
    mean = float(values.mean())
    if half is not None:
        lower["mean"], upper["mean"] = mean - half, mean + half
    return Latency(
        samples=int(values.size),
        mean_ms=mean,
        std_ms=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        min_ms=float(ordered[0]),
        max_ms=float(ordered[-1]),
        percentile_ms=percentiles,
        lower_ms=lower,
        upper_ms=upper,
        refused=refused,
        raw_ms=tuple(float(value) for value in values),
        warmup_runs=warmup_runs,
        converged=converged,
    )


def quantile_interval(
    ordered: Sequence[float] | NDArray[np.float64], level: float
) -> tuple[float | None, float | None]:
    """Both ends of the 95 % interval of a quantile; None for an end that the samples cannot give.

    With B ~ Binomial(n, level) samples below the quantile, its lower bound is the highest order statistic of a rank l
    with P(B < l) <= 2.5 %, its upper bound the lowest of a rank u with P(B >= u) <= 2.5 %.
    """
    from scipy import special

    count = len(ordered)
    below = special.bdtr(np.arange(count), count, level)  # P(B <= k), k = 0 ... n-1
    low = int(np.count_nonzero(below <= _ALPHA / 2))
    high = int(np.count_nonzero(below < 1 - _ALPHA / 2)) + 1
    return (
        float(ordered[low - 1]) if low >= 1 else None,
        float(ordered[high - 1]) if high <= count else None,
    )


def median_share(latency: Latency) -> float:
    """How far the interval of the median reaches from it, as a share of it; inf where there is no interval."""
    median = latency.percentile_ms.get("p50")
    low, high = latency.lower_ms.get("p50"), latency.upper_ms.get("p50")
    if not median or low is None or high is None:
        return math.inf
    return max(high - median, median - low) / median


def _mean_half_width(values: NDArray[np.float64]) -> float | None:
    from scipy import special

    if values.size >= _BATCHES * _RUNS_PER_BATCH:
        size = values.size // _BATCHES
        values = values[: size * _BATCHES].reshape(_BATCHES, size).mean(axis=1)
    if values.size < 2:
        return None
    student = float(special.stdtrit(values.size - 1, 1 - _ALPHA / 2))
    return student * float(values.std(ddof=1)) / math.sqrt(values.size)
