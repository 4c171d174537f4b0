"""How well the samples of one run know a quantile: the same rule ends a measurement and reports it.

Neighbouring runs are not independent, and clocks drift. So the samples are cut into batches in the order of time, and
the share of each batch that lies at or below the quantile is taken as one observation of it (Heidelberger & Lewis 1984,
"Quantile estimation in dependent sequences", Operations Research 32; Woodruff 1952 for the way back to samples). A
straight line through the shares takes a slow drift off, and where neighbouring batches still go together the variance
grows as that of a first-order autoregression.
"""

import math
from typing import Sequence

BATCHES = 20
LEAST = 10 * BATCHES  # with fewer runs in a batch its share says too little
STUDENT = 2.10092  # t of 97.5 % with BATCHES - 2 degrees of freedom
CHANCE = 0.2  # a correlation of neighbouring batches that 20 independent ones show easily


def half_level(samples: "Sequence[float]", quantile: float) -> float:
    """Half the width of the 95 % interval, as a share of the samples: of the level at which the quantile was taken."""
    size = len(samples) // BATCHES
    shares = [sum(1 for value in samples[i * size : (i + 1) * size] if value <= quantile) for i in range(BATCHES)]
    middle, mean = (BATCHES - 1) / 2, sum(shares) / BATCHES
    slope = sum((i - middle) * share for i, share in enumerate(shares)) / sum((i - middle) ** 2 for i in range(BATCHES))
    rest = [share - mean - slope * (i - middle) for i, share in enumerate(shares)]
    squares = sum(value * value for value in rest)
    if squares == 0:
        return 0.0
    together = sum(rest[i] * rest[i + 1] for i in range(BATCHES - 1)) / squares + 2 / BATCHES - CHANCE
    together = min(0.9, max(0.0, together))
    variance = squares / (BATCHES - 2) / size**2 * (1 + together) / (1 - together)
    return STUDENT * math.sqrt(variance / BATCHES)


def batch_interval(samples: "Sequence[float]", level: float) -> "tuple[float | None, float | None]":
    """Both ends of the 95 % interval of a quantile of at least LEAST samples, in the order in which they were timed.

    None for an end beyond the samples.
    """
    ordered = sorted(samples)
    count = len(ordered)
    half = half_level(samples, ordered[math.ceil(level * count) - 1])
    low, high = round((level - half) * count), round((level + half) * count) + 1
    return (
        ordered[low - 1] if low >= 1 else None,
        ordered[high - 1] if high <= count else None,
    )


def median_settled(samples: "Sequence[float]", share: float) -> bool:
    """True where the 95 % interval of the median is within `share` of it."""
    ordered = sorted(samples)
    count = len(ordered)
    if count >= LEAST:
        low, high = batch_interval(samples, 0.5)
    else:  # order statistics, normal approximation
        rank = int((count - 1.96 * math.sqrt(count)) / 2)
        low, high = (ordered[rank - 1], ordered[count - rank]) if rank >= 1 else (None, None)
    if low is None or high is None:
        return False
    median = ordered[count // 2]
    return max(high - median, median - low) <= share * median
