"""From the agent's answer to a comparison of two artifacts.

The unit is the worker process: where a process happens to lie in memory moves its latency by a percent or two, for all
of its runs, so runs of one process say little about another (Kalibera & Jones 2013, "Rigorous benchmarking in
reasonable time", ISMM). Each worker gives one logarithm of the ratio, the median over its pairs of blocks; their mean
has Student's interval.
"""

from __future__ import annotations

import math
import statistics as standard
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.records.comparison import Comparison, Verdict
from edgeprune.records.measurement import Outcome, Provenance

__all__ = ["LEAST_DIFFERENCE", "comparison", "judged"]

LEAST_DIFFERENCE = 0.005  # of the latency: below, no product notices, and layout in memory alone does as much
_ALPHA = 0.05
_ALPHA_CLAIM = 0.01  # a difference is claimed where an interval of 99 % excludes that there is none

Pairs = Sequence[Sequence[Sequence[float]]]  # per worker, per pair of blocks: both medians


def judged(workers: Pairs) -> tuple[float, float, float, Verdict]:
    """Ratio, both ends of its interval, verdict; needs at least two workers."""
    from scipy import special

    logs = [standard.median(math.log(first / second) for first, second in pairs) for pairs in workers]
    mean = standard.fmean(logs)
    error = standard.stdev(logs) / math.sqrt(len(logs))
    half, claim = (float(special.stdtrit(len(logs) - 1, 1 - alpha / 2)) * error for alpha in (_ALPHA, _ALPHA_CLAIM))
    ratio, lower, upper = math.exp(mean), math.exp(mean - half), math.exp(mean + half)
    if abs(ratio - 1) < LEAST_DIFFERENCE or abs(mean) <= claim:
        return ratio, lower, upper, "no difference"
    return ratio, lower, upper, "faster" if ratio < 1 else "slower"


def comparison(
    sha256s: tuple[str, str],
    frame: Mapping[str, Any],
    *,
    provenance: Provenance,
    warnings: Sequence[str],
    seconds: float,
) -> Comparison:
    """The record that the agent's result frame makes."""
    first, second = sha256s
    outcome, conditions = Outcome(frame["outcome"]), dict(frame.get("conditions") or {})
    if outcome is not Outcome.OK:
        message = str(frame.get("message", ""))
        return Comparison(first, second, outcome, provenance, conditions=conditions, message=message, seconds=seconds)
    pairs = tuple(tuple((one / 1e6, other / 1e6) for one, other in worker["pairs"]) for worker in frame["workers"])
    ratio, lower, upper, verdict = judged(pairs)
    medians = [standard.median(pair[arm] for worker in pairs for pair in worker) for arm in (0, 1)]
    return Comparison(
        artifact_sha256=first,
        against_sha256=second,
        outcome=outcome,
        provenance=provenance,
        verdict=verdict,
        ratio=ratio,
        lower=lower,
        upper=upper,
        p50_ms=(medians[0], medians[1]),
        pairs_ms=pairs,
        conditions=conditions,
        warnings=tuple(warnings),
        seconds=seconds,
    )
