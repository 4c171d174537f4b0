"""Prune six families by half and compare: pruned graph with its reference, ONNX with the graph; prints JSON.

    scripts/bench/prune_families.py --ratio 0.5

The networks are the small ones of tests/graph/models.py, with random weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> int:
    """All families, one after the other."""
    from edgeprune.pipeline.prune import prune
    from tests.graph.models import FAMILIES, build

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratio", type=float, default=0.5, help="share of each group's units that is removed")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for name in FAMILIES:
        rows[name] = _row(name, build, prune, options.ratio)
        print(f"{name}: {rows[name]}", file=sys.stderr)
    print(json.dumps({"ratio": options.ratio, "families": rows}, indent=2))
    return 0


def _row(name: str, build: Any, prune: Any, ratio: float) -> dict[str, Any]:
    from edgeprune.graph.capture import capture

    model, inputs = build(name)
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
        start = time.perf_counter()
        captured = capture(model, inputs)
        exported = time.perf_counter()
        groups = captured.groups
        coupled = time.perf_counter()
        report = prune(captured, Path(folder) / "small.pt2", ratio=ratio, export_to=Path(folder) / "small.onnx")
        done = time.perf_counter()
    return {
        "export_s": round(exported - start, 3),
        "coupling_s": round(coupled - exported, 3),
        "prune_save_export_s": round(done - coupled, 3),
        "groups": len(groups),
        **{key: report[key] for key in ("params", "macs", "verification_error", "parity_error")},
    }


if __name__ == "__main__":
    sys.exit(main())
