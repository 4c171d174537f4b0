"""One budget-driven run of a benchmark's task, and its figures as JSON: what the budget benchmarks share."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from edgeprune.cli.progress import open_progress
from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.records.project import load_project
from edgeprune.records.trial import Trial

__all__ = ["main"]

_FIGURES = ("accuracy", "latency.p50", "latency.p95", "peak_memory", "size")


def main(
    task: str,
    *,
    description: str,
    project: str,
    epochs: int,
    latency: str = "75% of dense",
    max_drop: str = "4pp",
    strategy: str = "uniform",
) -> int:
    """Run the project text (YAML without its task) and print the figures; the exit code is that of the result.

    `task` names a class in a file beside this one ("resnet20.py:Cifar10"). The others are defaults of options.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--latency", default=latency, help="limit of the median latency")
    parser.add_argument("--max-drop", default=max_drop, help="allowed loss of accuracy")
    parser.add_argument("--strategy", default=strategy)
    parser.add_argument("--importance", default="l1")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="local")
    parser.add_argument("--run-dir", type=Path, help="keep the run here; default: a temporary folder")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
        path = Path(folder) / "edgeprune.yaml"
        here = Path(__file__).resolve().parent
        text = {
            "task": f"{here / task}",
            "device": {"profile": "host", "target": options.target},
            "budget": {"latency": {"p50": options.latency}, "accuracy": {"max_drop": options.max_drop}},
            "search": {"strategy": options.strategy, "importance": options.importance, "seed": options.seed},
            "recovery": {"epochs": options.epochs},
        }
        path.write_text(json.dumps(_merged(text, json.loads(project))))  # JSON is YAML
        loaded = load_project(path)
        run_dir = (options.run_dir or Path(folder) / "run").resolve()
        run_dir.mkdir(parents=True, exist_ok=True)
        with open_progress() as progress:
            result = run(loaded, task=load_task(loaded.task, loaded.folder), run_dir=run_dir, progress=progress)
    print(
        json.dumps(
            {
                "status": result.status,
                "budget": result.budget.to_json(),
                "strategy": options.strategy,
                "importance": options.importance,
                "seed": options.seed,
                "epochs": options.epochs,
                "dense": _figures(result.dense),
                "pruned": None if result.best is None else _figures(result.best),
                "latency_ratio": _ratio(result.best, result.dense, "latency.p50"),
                "size_ratio": _ratio(result.best, result.dense, "size"),
                "trials": result.trials,
                "seconds": round(time.monotonic() - started, 1),
            },
            indent=2,
        )
    )
    return result.exit_code


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in more.items():
        merged[key] = _merged(merged[key], value) if isinstance(value, dict) and key in merged else value
    return merged


def _figures(trial: Trial) -> dict[str, Any]:
    values = {name: figure.value for name, figure in trial.figures.items() if name in _FIGURES}
    told = {name: trial.details[name] for name in ("quantised", "in_turn") if name in trial.details}
    return {**values, "macs": trial.details.get("macs"), "params": trial.details.get("params"), **told}


def _ratio(trial: Trial | None, dense: Trial, name: str) -> float | None:
    value = None if trial is None or name not in trial.figures else trial.figures[name].value
    reference = dense.figures[name].value
    return None if value is None or not reference else round(value / reference, 4)
