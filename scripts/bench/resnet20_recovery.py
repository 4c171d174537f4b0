"""How much accuracy recovery gives back to a pruned ResNet-20; prints JSON.

    scripts/bench/resnet20_recovery.py --ratio 0.25 --epochs 6 --seed 0
    scripts/bench/resnet20_recovery.py --ratio 0.4 --importance l1:members=all --compare global --round-to 8

The data is found as scripts/bench/resnet20.py says.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import get_args

from resnet20 import Cifar10

from edgeprune.graph.capture import capture
from edgeprune.graph.selection import Compare
from edgeprune.importance.base import ImportanceContext
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.recovery.batchnorm import reestimate
from edgeprune.recovery.finetune import finetune
from edgeprune.training_data import reproducible


def main() -> int:
    """Prune, recover, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratio", type=float, default=0.25, help="share of the units that is removed")
    parser.add_argument("--importance", default="l1")
    parser.add_argument("--compare", choices=get_args(Compare), default="layer")
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    task = Cifar10()
    dense = capture(task.model(), task.example_inputs())
    context = ImportanceContext(options.seed, task.train_batches, task.loss)
    candidate = dense.select(
        options.ratio,
        importance=options.importance,
        compare=options.compare,
        round_to=options.round_to,
        context=context,
    )
    pruned = dense.prune(candidate)
    figures = dict(vars(options))
    figures |= {"params_share": pruned.cost().params / dense.cost().params}
    figures |= {"macs_share": pruned.cost().macs / dense.cost().macs}
    figures |= {"dense_accuracy": task.evaluate(dense.module), "pruned_accuracy": task.evaluate(pruned.module)}
    with reproducible(options.seed):
        reestimate(pruned.module, task.train_batches(), task.loss)
    figures["reestimated_accuracy"] = task.evaluate(pruned.module)
    settings = FineTuneSettings(epochs=options.epochs)
    report = finetune(
        pruned.module, task.train_batches, task.loss, settings=settings, teacher=dense.module, seed=options.seed
    )
    figures |= {"finetuned_accuracy": task.evaluate(pruned.module), "finetune_seconds": round(report.seconds, 1)}
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
