"""The report of a run, `report.html`, made of what its folder holds; nothing is loaded or measured again."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgeprune import atomic
from edgeprune.errors import StorageError, UsageError
from edgeprune.export import manifest
from edgeprune.pipeline.structure import STRUCTURE
from edgeprune.pipeline.trials import trial_folder
from edgeprune.records import codec
from edgeprune.records.measurement import Measurement
from edgeprune.records.result import Result
from edgeprune.records.structure import Structure
from edgeprune.report.html.page import page
from edgeprune.report.html.view import View
from edgeprune.search.journal import read_trials

__all__ = ["REPORT", "read_view", "write_report"]

REPORT = "report.html"
RESULT = "result.json"

T = TypeVar("T")


def write_report(run_dir: Path, file: Path | None = None) -> Path:
    """Write the report of a finished run into its folder, or to `file`; raises StorageError where it has no result."""
    file = run_dir / REPORT if file is None else file
    atomic.write_text(file, page(read_view(run_dir)))
    return file


def read_view(run_dir: Path) -> View:
    """What the folder holds. Without a readable result StorageError; what else is missing is noted in the view."""
    result = codec.from_json(_json(run_dir / RESULT))
    if not isinstance(result, Result):
        raise StorageError(f"{run_dir / RESULT}: not the result of a run")
    notes: list[str] = []

    def tried(what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (StorageError, UsageError) as error:
            notes.append(f"The {what} could not be read, and is left out here: {error.message}")
            return None

    known = tuple(trial for trial in (result.dense, result.best) if trial is not None)
    trials = tried("trials", lambda: read_trials(run_dir)) or tuple({trial.number: trial for trial in known}.values())
    measurements: dict[int, Measurement] = {}
    for trial in known:
        path = trial_folder(run_dir, trial.number) / "measurement.json"
        found = (
            None
            if trial.artifact is None
            else tried(f"measurement of trial {trial.number}", partial(_measurement, path))
        )
        if found is not None:
            measurements[trial.number] = found
    artifact = result.provenance.get("files", {}).get("artifact")
    return View(
        name=run_dir.resolve().name,
        result=result,
        trials=trials,
        measurements=measurements,
        structure=tried("network's layers", lambda: Structure.from_json(_json(run_dir / STRUCTURE))),
        artifact_sha256=tried("manifest of the accepted file", lambda: manifest.read(run_dir / artifact).sha256)
        if artifact
        else None,
        notes=tuple(notes),
    )


def _measurement(path: Path) -> Measurement:
    found = codec.from_json(_json(path))
    if not isinstance(found, Measurement):
        raise StorageError(f"{path}: not a measurement")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise StorageError(f"{path}: not a record of edgeprune")
    return data
