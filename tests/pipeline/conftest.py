"""A small trained network, shared by the tests of a module; several have their own in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.pipeline.task import CheckedTask, load_task
from edgeprune.records.candidate import Candidate
from tests.pipeline.small_project import write_project


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("small")).parent


@pytest.fixture(scope="module")
def task(folder: Path) -> CheckedTask:
    return load_task("task.py:Small", folder)


@pytest.fixture(scope="module")
def captured(task: CheckedTask) -> Captured:
    return capture(task.model().eval(), task.example_inputs())


@pytest.fixture(scope="module")
def half(captured: Captured) -> Candidate:
    return captured.uniform(0.5, "l2", round_to=4)
