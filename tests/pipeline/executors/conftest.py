"""One run without workers, to which the others are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.records.project import Project, load_project
from tests.pipeline.executors.tiny_project import write_project


@pytest.fixture(scope="package")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    """A project, and the folder of its run in this process."""
    folder = tmp_path_factory.mktemp("alone")
    project = load_project(write_project(folder / "project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(folder / "device.lock"))
        result = run(project, task=load_task(project.task, project.folder), run_dir=folder / "run")
    assert result.status == "accepted"
    return project, folder / "run"
