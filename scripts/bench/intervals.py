#!/usr/bin/env python
"""Do reported intervals cover the truth, and are equal files told to be equal? Prints JSON.

    scripts/bench/intervals.py                # 1,000 simulated measurements of each kind, 1,000 comparisons, 40 real
    scripts/bench/intervals.py --real 0       # no real ones

Simulated measurements go through the very loop that times runs on a device, with its rule when to stop, on a clock that
the simulation owns. The truth of a drifting device is the median over the time in which it was measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.agent.device.latency import time_runs
from edgeprune.measure.comparison import judged
from edgeprune.measure.statistics import interval
from edgeprune.records.profile import MeasurementPolicy

KINDS = {  # dependence of neighbouring runs, drift over 10 s, share of a second mode 30 % slower
    "independent": (0.0, 0.0, 0.0),
    "dependent": (0.7, 0.0, 0.0),
    "drift": (0.0, 0.05, 0.0),
    "dependent, drift": (0.7, 0.05, 0.0),
    "two modes": (0.0, 0.0, 0.2),
}
SPREAD = 0.05  # of the logarithm of one run


def main() -> int:
    """Simulate, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--real", type=int, default=40, help="comparisons of a file with itself on this machine")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    report: dict[str, Any] = {"simulations": options.simulations, "interval_of_the_median": {}}
    for name, kind in KINDS.items():
        report["interval_of_the_median"][name] = coverage(random, kind, options.simulations)
    report["equal_told_equal"] = {"simulated": simulated_comparisons(random, options.simulations)}
    if options.real:
        report["equal_told_equal"]["real"] = real_comparisons(options.real)
    print(json.dumps(report, indent=2))
    return 0


class Device:
    """A clock, and runs of a millisecond that make it go on."""

    def __init__(self, random: np.random.Generator, kind: tuple[float, float, float]) -> None:
        dependence, self.drift, share = kind
        self.now_ns = 0
        self.noise = _noise(random, 20_100, dependence) + math.log(1.3) * (random.random(20_100) < share)
        self.count = 0

    def run(self) -> None:
        """One run."""
        slower = 1 + self.drift * self.now_ns / 10e9
        self.now_ns += round(1e6 * slower * math.exp(self.noise[self.count]))
        self.count += 1

    def clock(self) -> int:
        """Now, in ns."""
        return self.now_ns


def _noise(random: np.random.Generator, count: int, dependence: float) -> NDArray[np.float64]:
    """First-order autoregression with the standard deviation SPREAD."""
    steps = SPREAD * math.sqrt(1 - dependence**2) * random.normal(size=count)
    if not dependence:
        return steps
    from scipy.signal import lfilter

    return np.asarray(lfilter([1.0], [1.0, -dependence], steps))


def _truth(kind: tuple[float, float, float], seconds: float) -> float:
    """The median in ms of runs over the time, by bisection of the mixture's distribution."""
    from scipy.special import ndtr

    _, drift, share = kind
    slower = np.log(1 + drift * np.linspace(0, seconds, 201) / 10)

    def below(value: float) -> float:
        fast = ndtr((math.log(value) - slower) / SPREAD).mean()
        slow = ndtr((math.log(value) - slower - math.log(1.3)) / SPREAD).mean()
        return float((1 - share) * fast + share * slow)

    low, high = 0.5, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < 0.5 else (low, middle)
    return low


def coverage(random: np.random.Generator, kind: tuple[float, float, float], simulations: int) -> dict[str, Any]:
    """How often the interval holds the truth, and how many runs it took."""
    policy = MeasurementPolicy()
    task = {name: getattr(policy, name) for name in ("min_runs", "max_runs", "min_s", "max_s", "ci_share")}
    hits, runs = 0, []
    for _ in range(simulations):
        device = Device(random, kind)
        samples, _ = time_runs(device.run, task, device.clock)
        values = np.asarray(samples, np.float64) / 1e6
        low, high = interval(values, np.sort(values), 0.5)
        truth = _truth(kind, device.now_ns / 1e9)
        hits += low is not None and high is not None and low <= truth <= high
        runs.append(len(samples))
    return {"covered": round(hits / simulations, 4), "median_runs": float(np.median(runs)), "most_runs": max(runs)}


def simulated_comparisons(random: np.random.Generator, simulations: int) -> float:
    """Eight processes that lie differently in memory (1 %), 25 pairs of blocks (2 %), a device that slows by 3 %."""
    equal = 0
    for _ in range(simulations):
        lie = np.exp(0.01 * random.normal(size=(8, 1, 2)))
        drift = np.linspace(1, 1.03, 25)[None, :, None]
        workers = np.exp(0.02 * random.normal(size=(8, 25, 2))) * lie * drift
        equal += judged(workers.tolist())[3] == "no difference"
    return round(equal / simulations, 4)


def real_comparisons(count: int) -> dict[str, Any]:
    """A file against itself, again and again."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from edgeprune.pipeline.compare import compare
    from tests.onnx_models import chain_of_matmuls

    ratios, equal = [], 0
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
        artifact = chain_of_matmuls(Path(folder) / "model.onnx", width=256, layers=6)
        for number in range(count):
            found = compare(artifact, artifact, policy=MeasurementPolicy(warmup_s=0.2))
            ratios.append(round(float(found.ratio or math.nan), 4))
            equal += found.verdict == "no difference"
            print(f"{number + 1} of {count}: {found.verdict}, {found.ratio}", file=sys.stderr, flush=True)
    return {"comparisons": count, "told_equal": equal / count, "ratios": sorted(ratios)}


if __name__ == "__main__":
    sys.exit(main())
