"""Prune the trained ResNet-20 (CIFAR-10) until its measured median latency is within the budget; prints JSON.

    scripts/bench/resnet20_budget.py --latency "75% of dense" --max-drop 4pp

Needs the real data (see resnet20.py). Latency is measured on this machine: ONNX Runtime, one thread.
"""

from __future__ import annotations

import sys

from budget_run import main

if __name__ == "__main__":
    sys.exit(main("resnet20.py:Cifar10", description=__doc__, project="{}", epochs=12))
