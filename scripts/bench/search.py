"""Is the search worth anything? Accuracy at the same measured latency, by strategy and by Torch-Pruning; prints JSON.

    scripts/bench/search.py --out search.json                         # all: hours
    scripts/bench/search.py --networks dscnn --targets 0.5 --seeds 1 --out search.json
    scripts/bench/search.py --out search.json --resume                # goes on after the last finished cell

Every cell brings one network (`search_models.py`) to a share of its dense median latency on this machine (ONNX Runtime,
one thread) and fine-tunes it with the same settings; only what is pruned differs. A latency counts as within the limit
when its upper confidence bound is. `in turn` is the ratio of pruned to dense when both run side by side at the end: it
tells whether cells can be compared. Spread is the standard deviation over the seeds; cells that are not "accepted" are
left out of means. With 1,000 to 3,000 test examples the accuracy of one cell has a standard error of 0.4 to 1 point.

Torch-Pruning must be importable beside edgeprune, without what it would pull:

    python -m venv .venv-bench && .venv-bench/bin/pip install -c scripts/constraints.txt torch   # a CPU build
    .venv-bench/bin/pip install -c scripts/constraints.txt -e ".[dev]" && .venv-bench/bin/pip install tqdm
    .venv-bench/bin/pip install --no-deps torch-pruning==1.6.1

Without it, leave the methods tp_l1 and tp_taylor out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from search_cell import Cell, ours
from search_models import NETWORKS

from edgeprune import atomic
from edgeprune.cli.progress import open_progress
from edgeprune.errors import EdgepruneError
from edgeprune.progress import Progress
from edgeprune.records.recovery import FineTuneSettings

RIVALS = ("tp_l1", "tp_taylor")
METHODS = ("milp", "greedy", "netadapt", "uniform", *RIVALS)
TARGETS = (0.70, 0.50, 0.35)
_KEY = ("network", "method", "target", "seed", "epochs")


def main() -> int:
    """All cells that are asked for and not there yet."""
    options = _options()
    cells = [
        Cell(network, method, target, seed, NETWORKS[network].epochs if options.epochs is None else options.epochs)
        for network, target, seed, method in product(
            options.networks, options.targets, range(options.seeds), options.methods
        )
    ]
    rows = json.loads(options.out.read_text())["cells"] if options.resume and options.out.exists() else []
    done = {_key(row) for row in rows if row["status"] != "failed"}
    rows = [row for row in rows if _key(row) in done]
    tasks: dict[str, Any] = {}
    with open_progress() as progress:
        for index, cell in enumerate(cells):
            if _key(cell) in done:
                continue
            progress.say(f"cell {index + 1} of {len(cells)}: {cell}")
            if cell.network not in tasks:
                tasks[cell.network] = NETWORKS[cell.network].task()
            rows.append(_cell(cell, tasks[cell.network], options, progress))
            if options.out is not None:
                atomic.write_text(options.out, json.dumps({"cells": rows}, indent=2) + "\n")
    asked = {_key(cell) for cell in cells}
    rows = [row for row in rows if _key(row) in asked]
    print(_table(rows), file=sys.stderr)
    print(json.dumps({"cells": rows, "summary": _summary(rows)}, indent=2))
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS), help="shares of the dense latency")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=int, help="of the final fine-tuning; default: the network's")
    parser.add_argument("--importance", default="l1", help="of edgeprune's strategies")
    parser.add_argument("--out", type=Path, help="written after each cell")
    parser.add_argument("--resume", action="store_true", help="keep the finished cells of --out")
    parser.add_argument("--runs", type=Path, help="keep the runs in this folder; default: none is kept")
    options = parser.parse_args()
    if options.resume and options.out is None:
        parser.error("--resume goes on in a file: name it with --out")
    if not all(0 < target < 1 for target in options.targets):
        parser.error("--targets are shares of the dense latency, between 0 and 1: 0.7 0.5 0.35")
    return options


def _cell(cell: Cell, task: Any, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """The cell's figures; a failure is one, with its reason, and tried again on resuming."""
    recovery = FineTuneSettings(epochs=cell.epochs, learning_rate=NETWORKS[cell.network].learning_rate)
    name = f"{cell.network}-{cell.method}-{cell.target:g}-{cell.seed}"
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
        run_dir = (options.runs or Path(folder)).resolve() / name
        shutil.rmtree(run_dir, ignore_errors=True)  # of a cell that was killed: its seconds would be wrong
        try:
            if cell.method in RIVALS:
                from torch_pruning_side import theirs

                return theirs(cell, task, recovery=recovery, run_dir=run_dir, progress=progress)
            return ours(
                cell, task, recovery=recovery, importance=options.importance, run_dir=run_dir, progress=progress
            )
        except EdgepruneError as error:
            reason = f"{type(error).__name__}: {error}"
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            if cell.method not in RIVALS:
                raise
            reason = f"{type(error).__name__}: {error}"  # what the other library did to the network
    progress.say(f"failed: {reason}")
    return {name: getattr(cell, name) for name in _KEY} | {"status": "failed", "message": reason}


def _key(cell: Cell | dict[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[name] if isinstance(cell, dict) else getattr(cell, name) for name in _KEY)


def _summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds: means, the spread of the accuracy, and how many of the cells were accepted."""
    found = []
    for network, target, method in dict.fromkeys((r["network"], r["target"], r["method"]) for r in rows):
        cells = [r for r in rows if (r["network"], r["target"], r["method"]) == (network, target, method)]
        good = [r for r in cells if r["status"] == "accepted"]
        accuracies = [r["accuracy"] for r in good]
        entry = {"network": network, "target": target, "method": method, "cells": len(cells), "accepted": len(good)}
        entry["spread"] = statistics.stdev(accuracies) if len(good) > 1 else None
        for name in ("accuracy", "latency.p50", "latency_ratio", "peak_memory", "size", *_EFFORT):
            values = [r[name] for r in good if r.get(name) is not None]
            entry[name] = statistics.mean(values) if values else None
        in_turn = [r["ratio_in_turn"][0] for r in good if r["ratio_in_turn"] and r["ratio_in_turn"][0] is not None]
        entry["ratio_in_turn"] = statistics.mean(in_turn) if in_turn else None
        # The load of the machine changed while the cell ran: its accuracy is one at another latency.
        entry["above_target"] = sum(bool(t := r["ratio_in_turn"]) and (t[1] or 0) > target for r in good)
        dense = [r["dense"]["accuracy"] for r in cells if "dense" in r]
        entry["dense_accuracy"] = dense[0] if dense else None
        found.append(entry)
    return found


_EFFORT = ("device_measurements", "fine_tuning_steps", "seconds")
_COLUMNS = (
    ("network", "network", "{}"),
    ("target", "target", "{:.2f}"),
    ("method", "method", "{}"),
    ("dense_accuracy", "dense %", "{:.1%}"),
    ("accuracy", "accuracy", "{:.2%}"),
    ("spread", "spread", "{:.2%}"),
    ("latency.p50", "p50 ms", "{:.3f}"),
    ("latency_ratio", "ratio", "{:.3f}"),
    ("ratio_in_turn", "in turn", "{:.3f}"),
    ("peak_memory", "memory B", "{:.0f}"),
    ("size", "size B", "{:.0f}"),
    ("device_measurements", "measured", "{:.0f}"),
    ("fine_tuning_steps", "steps", "{:.0f}"),
    ("seconds", "seconds", "{:.0f}"),
)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """The summary in columns; "-" is what no accepted cell has."""
    lines = [[title for _, title, _ in _COLUMNS] + ["accepted"]]
    for entry in _summary(rows):
        shown = ["-" if entry[name] is None else form.format(entry[name]) for name, _, form in _COLUMNS]
        above = f" ({entry['above_target']} above target)" if entry["above_target"] else ""
        lines.append([*shown, f"{entry['accepted']}/{entry['cells']}{above}"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(text.ljust(n) for text, n in zip(line, widths, strict=True)).rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
