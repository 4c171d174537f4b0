"""ResNet-20 with single weights removed: accuracy before and after fine-tuning, and what it is worth; prints JSON.

    scripts/bench/resnet20_sparsity.py --epochs 2

The data is found as scripts/bench/resnet20.py says; latency is of ONNX Runtime on this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from resnet20 import Cifar10

import edgeprune as ep
from edgeprune.pipeline.sparsify import sparsify
from edgeprune.pipeline.task import load_task

WAYS: dict[str, dict[str, Any]] = {
    "2:4 magnitude": {"pattern": "2:4"},
    "2:4 wanda": {"pattern": "2:4", "criterion": "wanda"},
    "80 % unstructured, layer": {"pattern": "unstructured", "ratio": 0.8},
    "80 % unstructured, global": {"pattern": "unstructured", "ratio": 0.8, "scope": "global"},
    "80 % unstructured, LAMP": {"pattern": "unstructured", "ratio": 0.8, "criterion": "lamp"},
    "50 % blocks 4x4, global": {"pattern": "block 4x4", "ratio": 0.5, "scope": "global"},
}


def main() -> int:
    """Each way by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task = load_task("resnet20.py:Cifar10", Path(__file__).resolve().parent)
    dense = ep.capture(Cifar10().model(), Cifar10().example_inputs())
    rows: dict[str, Any] = {}
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
            report = sparsify(
                dense,
                Path(folder) / "sparse.pt2",
                epochs=options.epochs,
                seed=options.seed,
                target="local",
                task=task,
                **way,
            )
        rows[name] = {key: report[key] for key in ("zero_share", "accuracy", "worth")}
        print(f"{name}: {json.dumps(rows[name])}", file=sys.stderr, flush=True)
    print(json.dumps({"epochs": options.epochs, "seed": options.seed, "ways": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
