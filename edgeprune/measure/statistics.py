"""Latency statistics that claim no more than the samples support.

Every percentile has a 95 % confidence interval. From 200 runs on it is that of `edgeprune.agent.device.intervals`,
which ended the measurement as well: it knows that neighbouring runs depend on one another and that clocks drift. Below,
and where such an interval would reach beyond the samples, it is that of order statistics: distribution-free, ranks from
the binomial distribution (Hahn & Meeker, Statistical Intervals, 1991, section 5.2). A percentile is given only from the
sample count at which the second largest sample bounds it from above with 99 % confidence (Wilks 1941, second order):
p90 from 64, p95 from 130, p99 from 662 runs. The mean's interval is Student's, over batch means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeprune.agent.device.intervals import LEAST, batch_interval
from edgeprune.records.measurement import Latency, Modes

__all__ = ["PERCENTILES", "interval", "median_share", "modes", "quantile_interval", "summarize"]

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
_LEAST_RUNS = {"p50": 6, "p90": 64, "p95": 130, "p99": 662}  # 6: below, no interval of the median reaches 95 %
_ALPHA = 0.05
_LEAST_MODES = 50
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
        low, high = interval(values, ordered, level)
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
        modes=modes(values),
    )


def interval(
    values: NDArray[np.float64], ordered: NDArray[np.float64], level: float
) -> tuple[float | None, float | None]:
    """Both ends of the 95 % interval of a quantile of samples in the order of time; None for one they cannot give."""
    low, high = batch_interval(values.tolist(), level) if len(values) >= LEAST else (None, None)
    if low is None or high is None:
        plain = quantile_interval(ordered, level)
        return plain[0] if low is None else low, plain[1] if high is None else high
    return low, high


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


def modes(samples_ms: Sequence[float] | NDArray[np.float64]) -> Modes | None:
    """Two separate states of the device, where the samples show them; None where they are of one kind.

    The logarithms are split where the variance between the parts is greatest (Otsu 1979,
    doi:10.1109/TSMC.1979.4310076). The parts are two modes where each holds a tenth of the samples, their medians lie
    5 % apart, and between these medians there is a valley: their middle third holds less than a twentieth of what lies
    between them.
    """
    values = np.sort(np.asarray(samples_ms, np.float64))
    count = len(values)
    if count < _LEAST_MODES or values[0] <= 0:
        return None
    logs = np.log(values)
    sizes = np.arange(1, count)
    below = np.cumsum(logs)[:-1] / sizes
    above = (logs.sum() - np.cumsum(logs)[:-1]) / (count - sizes)
    split = int(np.argmax(sizes * (count - sizes) * (above - below) ** 2)) + 1
    share = split / count
    low, high = float(np.median(values[:split])), float(np.median(values[split:]))
    if not 0.1 <= share <= 0.9 or high < 1.05 * low:
        return None
    width = (high - low) / 3
    between = np.count_nonzero((values >= low) & (values <= high))
    valley = np.count_nonzero((values > low + width) & (values < high - width))
    return Modes(low, share, high, 1 - share) if valley < 0.05 * between else None


def _mean_half_width(values: NDArray[np.float64]) -> float | None:
    from scipy import special

    if values.size >= _BATCHES * _RUNS_PER_BATCH:
        size = values.size // _BATCHES
        values = values[: size * _BATCHES].reshape(_BATCHES, size).mean(axis=1)
    if values.size < 2:
        return None
    student = float(special.stdtrit(values.size - 1, 1 - _ALPHA / 2))
    return student * float(values.std(ddof=1)) / math.sqrt(values.size)
