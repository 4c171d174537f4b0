"""What a path on the command line names: a project's latest run, a run's folder, or a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.records.project import Project

__all__ = ["NAMED", "latest_of", "named"]

NAMED = "RUN is a run's folder, or a project (its latest run); ARTIFACT an exported file with its manifest."


def named(path: Path) -> tuple[Path, Project | None]:
    """The run's folder or the file, and the project where the path names one; raises UsageError."""
    if path.suffix not in (".yaml", ".yml") and not (path / "edgeprune.yaml").is_file():
        return path, None
    from edgeprune.records.project import load_project

    project = load_project(path)
    return latest_of(project, path), project


def latest_of(project: Project, path: Path) -> Path:
    """The folder of the project's latest run; raises UsageError where there is none."""
    from edgeprune.cli.project import latest_run

    latest = latest_run(project.runs)
    if latest is None:
        hint = f"start one: {shlex.join(('edgeprune', 'run', str(path)))}"
        raise UsageError(f"there is no run in {project.runs}", hint=hint)
    return latest
