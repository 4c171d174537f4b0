"""Prune the model families of torchvision, timm and transformers by 25 and 50 %, each verified; prints JSON.

    scripts/bench/coverage.py                    # all of them, Torch-Pruning beside each
    scripts/bench/coverage.py --models swin_tiny_patch4_window7_224 gpt2 --no-rival --no-onnx

Random weights, random units. Each model runs in a process of its own, and so does Torch-Pruning, which gets 45 s.
Needs, beside edgeprune, `torchvision==0.28.0` (installed with --no-deps), `timm==1.0.31`, `transformers` and
`torch-pruning==1.6.1` in the environment that runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parent)]
RATIOS = (0.25, 0.5)
RIVAL_LIMIT_S = 45


def main() -> int:
    """Each model in its own process."""
    from coverage_models import NAMES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=NAMES, metavar="NAME", help="default: all of them")
    parser.add_argument("--no-rival", action="store_true", help="leave Torch-Pruning out")
    parser.add_argument("--no-onnx", action="store_true", help="leave the export to ONNX out")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one model")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--rival", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one or options.rival:
        row = _ours(options.one, onnx=not options.no_onnx) if options.one else _torch_pruning(options.rival)
        print(json.dumps(row))
        return 0
    unknown = set(options.models) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    rows: dict[str, dict[str, Any]] = {}
    for name in options.models:
        extra = ["--no-onnx"] if options.no_onnx else []
        rows[name] = _in_process(["--one", name, *extra], options.limit)
        if not options.no_rival:
            rows[name]["torch_pruning"] = _in_process(["--rival", name], RIVAL_LIMIT_S)
        print(f"{name}: {json.dumps(rows[name])}", file=sys.stderr, flush=True)
    print(json.dumps({"summary": _summary(rows), "models": rows}, indent=2))
    return 0 if all("failed" not in row for row in rows.values()) else 1


def _in_process(arguments: list[str], limit_s: float) -> dict[str, Any]:
    command = [sys.executable, str(HERE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit_s:g} s"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": lines[-1][:500]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    gc.collect()  # what the exporter left behind is not to be cleared away on somebody else's time
    start = time.perf_counter()
    result = function()
    return result, round(time.perf_counter() - start, 4)


def _ours(name: str, *, onnx: bool) -> dict[str, Any]:
    import torch
    from coverage_models import build
    from reachability import reachable

    from edgeprune.graph.capture import capture

    small = capture(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)), torch.randn(1, 8))
    small.prune(small.uniform(0.5, "random"))  # what is imported on first use
    torch.manual_seed(0)
    model, inputs = build(name)
    captured, export_s = _timed(lambda: capture(model, inputs))
    groups, coupling_s = _timed(lambda: captured.groups)
    row: dict[str, Any] = {
        "params_m": round(sum(p.numel() for p in model.parameters()) / 1e6, 2),
        "dynamic_batch": captured.batch_dynamic,
        "export_s": export_s,
        "coupling_s": coupling_s,
        "groups": len(groups),
        "reachable": round(reachable(captured), 4),
        "frozen_by": _frozen_by(captured),
    }
    for ratio in RATIOS:
        candidate = captured.uniform(ratio, "random", seed=1)
        _, surgery_s = _timed(functools.partial(captured.prune, candidate, verify=False))
        pruned, verified_s = _timed(functools.partial(captured.prune, candidate))
        row[f"{ratio:.0%}"] = {
            "surgery_s": surgery_s,
            "surgery_and_verification_s": verified_s,
            "relative_error": pruned.verification.relative_error,
            "arithmetic": pruned.verification.dtype,
            "params_left": round(pruned.cost().params / captured.cost().params, 4),
        }
    if onnx:
        from edgeprune.pipeline.export import export

        with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
            artifact, row["onnx_export_s"] = _timed(lambda: export(pruned, Path(folder) / "small.onnx"))
        row["onnx_relative_error"] = artifact.provenance["parity_error"]
    row["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return row


def _frozen_by(captured: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in captured.frozen:
        reason = " ".join(w for w in str(group.frozen).split() if not w.startswith("'"))
        found[reason] = found.get(reason, 0) + group.units
    return found


def _torch_pruning(name: str) -> dict[str, Any]:
    import torch
    from coverage_models import build

    _prune_by_rival(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)), (torch.randn(1, 8),), [])
    torch.manual_seed(0)
    model, inputs = build(name)
    before = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        shape = _first(model(*inputs)).shape
    classifier = [
        m
        for m in model.modules()
        if (isinstance(m, torch.nn.Linear) and m.out_features == shape[-1])
        or (isinstance(m, torch.nn.Conv2d) and m.out_channels == shape[1])
    ]

    with contextlib.redirect_stdout(sys.stderr):
        _, prune_s = _timed(lambda: _prune_by_rival(model, inputs, classifier[-1:]))
    with torch.no_grad():
        ok = _first(model(*inputs)).shape == shape
    after = sum(p.numel() for p in model.parameters())
    if not ok or after == before:
        return {"failed": "its output has another shape" if not ok else "it removed nothing"}
    return {"prune_s": prune_s, "params_left": round(after / before, 4)}


def _prune_by_rival(model: Any, inputs: Any, ignored: list[Any]) -> None:
    import torch_pruning

    torch_pruning.pruner.MetaPruner(
        model,
        inputs,
        importance=torch_pruning.importance.RandomImportance(),
        pruning_ratio=RATIOS[0],
        ignored_layers=ignored,
    ).step()


def _first(output: Any) -> Any:
    while not hasattr(output, "shape"):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output


def _summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    done = {name: row for name, row in rows.items() if "failed" not in row}
    both = [
        row["torch_pruning"]["prune_s"] / (row["coupling_s"] + row["25%"]["surgery_s"])
        for row in done.values()
        if "prune_s" in row.get("torch_pruning", {})
    ]
    return {
        "models": len(rows),
        "verified": len(done),
        "failed": sorted(set(rows) - set(done)),
        "reachable_95": sum(row["reachable"] >= 0.95 for row in done.values()),
        "below_95": {n: row["reachable"] for n, row in done.items() if row["reachable"] < 0.95},
        "largest_error": max(
            (row[f"{r:.0%}"]["relative_error"] for row in done.values() for r in RATIOS), default=None
        ),
        "largest_onnx_error": max(
            (r["onnx_relative_error"] for r in done.values() if "onnx_relative_error" in r), default=None
        ),
        "largest_coupling_s": max((row["coupling_s"] for row in done.values()), default=None),
        "torch_pruning_works_on": len(both),
        "times_faster_than_torch_pruning_median": round(statistics.median(both), 2) if both else None,
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
