"""One cell of `search.py`: a network brought to a share of its latency by one of edgeprune's strategies, as figures."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.export import manifest
from edgeprune.measure.session import Session
from edgeprune.pipeline.planning import COSTS, SENSITIVITIES
from edgeprune.pipeline.search import search
from edgeprune.progress import Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import Budget
from edgeprune.records.figures import Figures
from edgeprune.records.measurement import Outcome
from edgeprune.records.profile import load_profile
from edgeprune.records.project import SearchSettings
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.search.journal import read_trials
from edgeprune.targets.parse import open_target

__all__ = ["WAIT_S", "Cell", "budget", "open_session", "ours", "row"]

_WORKERS = 4  # processes in which the dense and the pruned file run in turn, at the end
WAIT_S = 600.0  # for another measurement on this machine to end


@dataclass(frozen=True, slots=True)
class Cell:
    """What is asked: the method on the network, at a share of the dense median latency."""

    network: str
    method: str
    target: float
    seed: int
    epochs: int


def budget(cell: Cell) -> Budget:
    """The cell's limit, the only one."""
    return Budget.parse({"latency": {"p50": f"{cell.target:.0%} of dense"}})


def open_session(progress: Progress) -> Session:
    """This machine, as `edgeprune run` measures on it."""
    return Session(open_target("local"), load_profile("host"), progress=progress, wait_s=WAIT_S)


def row(
    cell: Cell,
    *,
    status: str,
    figures: Figures,
    dense: Figures,
    artifacts: tuple[Artifact, Artifact] | None,
    measurements: int,
    steps: int,
    started: float,
    progress: Progress,
    **more: Any,
) -> dict[str, Any]:
    """The cell as plain data. `artifacts` are the pruned and the dense one: they are run in turn once more.

    That ratio decides what can be compared, as the dense file's figure is as old as the cell; it and its seconds are
    not counted for the method.
    """
    seconds = time.monotonic() - started
    compared = None
    if artifacts is not None:
        with open_session(progress) as session:
            compared = session.compare(*artifacts, workers=_WORKERS)
    return {
        **asdict(cell),
        "status": status,
        **{name: figures[name].value if name in figures else None for name in _FIGURES},
        "latency_ratio": _ratio(figures, dense),
        "ratio_in_turn": None if compared is None else [compared.ratio, compared.lower, compared.upper],
        "device_measurements": measurements,
        "fine_tuning_steps": steps,
        "seconds": round(seconds, 1),
        "dense": {name: dense[name].value for name in _FIGURES if name in dense},
        **more,
    }


def ours(
    cell: Cell,
    task: Any,
    *,
    recovery: FineTuneSettings,
    importance: str,
    run_dir: Path,
    progress: Progress,
) -> dict[str, Any]:
    """The method is a strategy's name; everything comes from the run's own journal and result.

    `operators_timed` counts those of the cost model, also where the user's cache knew them and no time was spent.
    """
    started = time.monotonic()
    result = search(
        task,
        budget=budget(cell),
        run_dir=run_dir,
        settings=SearchSettings(strategy=cell.method, importance=importance, seed=cell.seed),
        recovery=recovery,
        progress=progress,
    )
    trials = read_trials(run_dir)
    again = sum(len(trial.details.get("dense_again", ())) for trial in trials)
    best, dense = result.best, result.dense
    artifacts = None
    if best is not None and best.artifact is not None and dense.artifact is not None:
        artifacts = manifest.read(run_dir / best.artifact), manifest.read(run_dir / dense.artifact)
    return row(
        cell,
        status=result.status,
        figures={} if best is None else best.figures,
        dense=dense.figures,
        artifacts=artifacts,
        measurements=again + sum(trial.measurements for trial in trials),
        steps=sum(trial.details.get("fine_tuning_steps", 0) for trial in trials),
        started=started,
        progress=progress,
        trials=len(trials),
        failed_trials=sum(trial.outcome != Outcome.OK.value for trial in trials),
        widths={} if best is None else {name: len(units) for name, units in best.candidate.kept.items()},
        dropped_blocks=[] if best is None else list(best.candidate.dropped_blocks),
        operators_timed=_entries(run_dir / COSTS, "operators"),
        sensitivities=_entries(run_dir / SENSITIVITIES, "losses"),
        message=result.message,
    )


_FIGURES = ("accuracy", "latency.p50", "peak_memory", "size")


def _entries(path: Path, name: str) -> int:
    """How many entries of a kind a run's file has; none where the strategy needs no such file."""
    return len(json.loads(path.read_text(encoding="utf-8"))[name]) if path.exists() else 0


def _ratio(figures: Figures, dense: Figures) -> float | None:
    value = figures["latency.p50"].value if "latency.p50" in figures else None
    reference = dense["latency.p50"].value
    return None if value is None or not reference else round(value / reference, 4)
