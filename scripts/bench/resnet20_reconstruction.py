"""How much accuracy a pruned ResNet-20 wins back without labels or training; prints JSON.

    scripts/bench/resnet20_reconstruction.py --ratios 0.1 0.2 0.3 0.5

The channels inside the residual blocks go, lowest L1 norm first; 1,024 unlabelled training images calibrate. The data
is found as scripts/bench/resnet20.py says.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from resnet20 import Cifar10, lowest_l1

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from edgeprune.recovery.batchnorm import reestimate
from edgeprune.recovery.reconstruct import reconstruct
from edgeprune.training_data import reproducible

_BATCHES = 8


def main() -> int:
    """Prune, recover in each way, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task = Cifar10()
    dense = capture(task.model(), task.example_inputs())
    with reproducible(options.seed):
        batches = [batch for _, batch in zip(range(_BATCHES), task.train_batches(), strict=False)]
    figures: dict[str, Any] = {"seed": options.seed, "images": sum(len(images) for images, _ in batches)}
    figures["dense_accuracy"] = task.evaluate(dense.module)
    figures["ratios"] = {str(ratio): _recovered(task, dense, ratio, batches) for ratio in options.ratios}
    print(json.dumps(figures, indent=2))
    return 0


def _recovered(task: Cifar10, dense: Captured, ratio: float, batches: list[Any]) -> dict[str, Any]:
    images = [batch[0] for batch in batches]

    def statistics(pruned: Pruned) -> None:
        reestimate(pruned.module, batches, task.loss)

    def bias(pruned: Pruned) -> None:
        reconstruct(pruned, dense, images, method="bias")

    def least_squares(pruned: Pruned) -> None:
        reconstruct(pruned, dense, images)

    ways: Mapping[str, tuple[Callable[[Pruned], None], ...]] = {
        "plain": (),
        "batch_norm": (statistics,),
        "bias": (bias,),
        "least_squares": (least_squares,),
        "bias_then_batch_norm": (bias, statistics),
        "least_squares_then_batch_norm": (least_squares, statistics),
        "batch_norm_then_least_squares": (statistics, least_squares),
    }
    candidate = lowest_l1(dense, ratio)
    figures: dict[str, Any] = {}
    for name, steps in ways.items():
        pruned = dense.prune(candidate)
        started = time.monotonic()
        for step in steps:
            step(pruned)
        figures[name] = {"accuracy": task.evaluate(pruned.module), "seconds": round(time.monotonic() - started, 1)}
    return figures


if __name__ == "__main__":
    sys.exit(main())
