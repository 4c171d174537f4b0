#!/usr/bin/env python
"""Is what a search accepts truly within the budget, and how good is it? On simulated devices; prints JSON.

    scripts/bench/simulated_search.py                       # 200 problems, the strategy milp
    scripts/bench/simulated_search.py --strategy greedy --problems 50

The true costs of a simulated device are known; the cost model that the search starts from is wrong by up to 20 % per
class of operators, and measurements have noise, drift, outliers and throttling. On small problems the predicted loss
is compared with the least one of all networks that are truly within the limits, and with the least one of those that
a measurement can show to be (whose upper confidence bound is within).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgeprune import registry
from edgeprune.search.journal import Journal
from edgeprune.search.loop import search
from edgeprune.search.problem import Choice, predicted_loss
from edgeprune.testing.simulated_costs import SimulatedDevice, simulated_device

SMALL = {"groups": 5, "options": 6, "blocks": 1}


def main() -> int:
    """Search, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first problem")
    parser.add_argument("--strategy", default="milp")
    parser.add_argument("--verbose", action="store_true", help="one line per problem on stderr")
    options = parser.parse_args()
    runs = []
    for seed in range(options.first, options.first + options.problems):
        small = seed % 2 == 0
        device = simulated_device(seed, **SMALL) if small else simulated_device(seed)
        runs.append(one(device, options.strategy, small))
        if options.verbose:
            print(seed, json.dumps(runs[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"strategy": options.strategy, **summary(runs)}, indent=2))
    return 0


def one(device: SimulatedDevice, strategy: str, small: bool) -> dict[str, Any]:
    """One search, and what is true of its result."""
    factory = registry.resolve("strategies", strategy)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Journal.open(Path(folder), {}, resume=False) as journal:
        result = search(
            lambda dense: factory(device.space, device.budget, dense, seed=0),
            device,
            journal,
            device.budget,
            sleep=lambda _: None,
        )
        measured = sum(trial.measurements for trial in journal.trials) - 1
    found: dict[str, Any] = {"status": result.status, "measured": measured, "seconds": time.monotonic() - started}
    if result.status == "accepted" and result.best is not None:
        loss = predicted_loss(device.space, Choice.of(result.best.candidate, device.space))
        found |= {"within": device.within(result.best.candidate), "loss": loss}
    if small:
        found |= {"least": device.least_loss(), "provable": device.least_loss(1 - 1 / (1 + 2 * device.noise))}
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares and quantiles."""
    accepted = [run for run in runs if run["status"] == "accepted"]
    report: dict[str, Any] = {
        "problems": len(runs),
        "accepted": len(accepted),
        "truly_within": sum(run["within"] for run in accepted) / max(len(accepted), 1),
        "most_measured": max(run["measured"] for run in runs),
        "mean_measured": statistics.mean(run["measured"] for run in runs),
        "median_seconds": statistics.median(run["seconds"] for run in runs),
    }
    for reference in ("least", "provable"):
        excess = sorted(run["loss"] / run[reference] - 1 for run in accepted if run.get(reference))
        if excess:
            report[f"loss_above_{reference}"] = {
                "problems": len(excess),
                "median": statistics.median(excess),
                "p90": excess[int(0.9 * (len(excess) - 1))],
                "most": excess[-1],
                "within_2_percent": sum(value <= 0.02 for value in excess) / len(excess),
            }
    return report


if __name__ == "__main__":
    raise SystemExit(main())
