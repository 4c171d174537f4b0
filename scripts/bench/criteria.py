"""Accuracy of ResNet-20 on CIFAR-10 right after pruning, without fine-tuning: every criterion and comparison.

    scripts/bench/criteria.py --ratio 0.3
    scripts/bench/criteria.py --macs 0.7 --importance l1 --importance l1:members=all --round-to 8

With --macs each ratio is chosen so that at most this share of the multiply-accumulates is left: comparisons remove
unlike amounts at the same ratio. Prints JSON: the accuracy as it is and after batch-norm re-estimation, the shares of
parameters and multiply-accumulates that are left, and the seconds that scoring took. The data is found as
scripts/bench/resnet20.py says.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any, get_args

from resnet20 import Cifar10

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.graph.selection import Compare
from edgeprune.importance.base import ImportanceContext, Scores
from edgeprune.records.candidate import Candidate
from edgeprune.recovery.batchnorm import reestimate
from edgeprune.registry import create, names
from edgeprune.training_data import reproducible


@dataclass(frozen=True)
class Known:
    """An importance whose scores are known already."""

    scores: Scores
    needs_data = False

    def score(self, *_: object) -> Scores:
        """The scores."""
        return self.scores


def main() -> int:
    """Score, prune and evaluate each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--ratio", type=float, default=0.3, help="share of the units that is removed")
    how_much.add_argument("--macs", type=float, help="share of the multiply-accumulates that may be left")
    parser.add_argument("--importance", action="append", help="all, if none is given")
    parser.add_argument("--compare", action="append", choices=get_args(Compare), help="all, if none is given")
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    task = Cifar10()
    dense = capture(task.model(), task.example_inputs())
    context = ImportanceContext(options.seed, task.train_batches, task.loss)
    rows = []
    for importance in options.importance or names("importances"):
        start = time.perf_counter()
        known = Known(create("importances", importance).score(dense.module, dense.groups, context))
        seconds = time.perf_counter() - start
        for compare in options.compare or get_args(Compare):
            settings = {"importance": known, "compare": compare, "round_to": options.round_to}
            ratio = options.ratio if options.macs is None else ratio_for(dense, options.macs, settings)
            row = {"importance": importance, "compare": compare, "scoring_seconds": round(seconds, 3)}
            rows.append(row | figures(task, dense, dense.select(ratio, **settings), options.seed))
    result: dict[str, Any] = {"dense_accuracy": task.evaluate(dense.module), **vars(options), "rows": rows}
    print(json.dumps(result, indent=2))
    return 0


def ratio_for(dense: Captured, macs: float, settings: dict[str, Any]) -> float:
    """The least ratio, to 1/256, that leaves no more than this share of the multiply-accumulates."""
    low, high = 0.0, 255 / 256
    while high - low > 1 / 256:
        middle = (low + high) / 2
        pruned = dense.prune(dense.select(middle, **settings), verify=False)
        low, high = (low, middle) if pruned.cost().macs <= macs * dense.cost().macs else (middle, high)
    return high


def figures(task: Cifar10, dense: Captured, candidate: Candidate, seed: int) -> dict[str, float]:
    """Accuracy and cost of the pruned network."""
    pruned = dense.prune(candidate)
    found = {
        "params_share": round(pruned.cost().params / dense.cost().params, 3),
        "macs_share": round(pruned.cost().macs / dense.cost().macs, 3),
        "accuracy": task.evaluate(pruned.module),
    }
    with reproducible(seed):
        reestimate(pruned.module, task.train_batches(), task.loss, max_batches=20)
    return found | {"reestimated_accuracy": task.evaluate(pruned.module)}


if __name__ == "__main__":
    raise SystemExit(main())
