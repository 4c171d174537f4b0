"""The search as a function call: what `edgeprune run` does, without a project file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import CheckedTask, check_task
from edgeprune.progress import SILENT, Progress
from edgeprune.records.budget import Budget
from edgeprune.records.project import DeviceSettings, ExportSettings, Project, SearchSettings
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.result import Result

__all__ = ["search"]


def search(
    task: Any,
    *,
    budget: Budget | Mapping[str, Any],
    run_dir: Path | str,
    target: str = "local",
    profile: str | Path = "host",
    settings: SearchSettings | None = None,
    recovery: FineTuneSettings | None = None,
    export: ExportSettings | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Result:
    """Prune the model of a task object until a measurement on the target shows that the budget is met.

    `task` has the parts of `edgeprune.Task`; `budget` may be a mapping as in YAML, {"size": "4MB"}; `run_dir` is the
    run's folder, which `resume` goes on in; `export` says the format, and int8 where that is wanted. Raises as
    `edgeprune run` does: TaskError, CaptureError, CannotMeasureError and its kinds, ParityError, VerificationError.
    """
    checked = task if isinstance(task, CheckedTask) else check_task(task)
    project = Project(
        task=f"{type(task).__module__}:{type(task).__qualname__}",
        path=Path(run_dir).absolute(),
        device=DeviceSettings(profile=str(profile), target=target),
        budget=budget if isinstance(budget, Budget) else Budget.parse(budget),
        search=settings or SearchSettings(),
        recovery=recovery or FineTuneSettings(),
        export=export or ExportSettings(),
    )
    return run(project, task=checked, run_dir=Path(run_dir), resume=resume, progress=progress)
