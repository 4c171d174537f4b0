"""Prune and quantise the trained ResNet-20 (CIFAR-10) in one run; prints JSON.

    scripts/bench/resnet20_int8.py            # half the latency and 15 % of the size, for 3 pp at most

Needs the real data (see resnet20.py). Limits are of the dense float model; latency is measured on this machine in turn
with it: ONNX Runtime, one thread.
"""

from __future__ import annotations

import sys

from budget_run import main

_PROJECT = '{"budget": {"size": "15% of dense"}, "export": {"quantize": "int8"}}'

if __name__ == "__main__":
    sys.exit(
        main(
            "resnet20.py:Cifar10",
            description=__doc__,
            project=_PROJECT,
            epochs=16,
            latency="50% of dense",
            max_drop="3pp",
            strategy="milp",
        )
    )
