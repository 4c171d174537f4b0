"""plan, on the digits project, measured here by ONNX Runtime; nothing but the cache of timings is written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.errors import TaskError
from edgeprune.pipeline.effort import Effort
from edgeprune.pipeline.plan import plan
from edgeprune.pipeline.task import load_task
from edgeprune.records.project import load_project
from tests.pipeline.small_project import PROJECT, write_project


@pytest.fixture(scope="module", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lock and a cache of our own."""
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(folder / "device.lock"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project")).parent


@pytest.fixture(scope="module")
def planned(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    temporary = tmp_path_factory.mktemp("temporary")
    project = load_project(folder)
    task = load_task(project.task, project.folder)
    task.model()  # trained once: its weights are kept beside the task
    before = sorted(folder.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        found = plan(project, task=task)
    assert not list(temporary.iterdir())
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts] == [
        path for path in before if "__pycache__" not in path.parts
    ]
    return json.loads(json.dumps(found.to_json(), allow_nan=False))


def test_ranges_lie_below_the_dense_figures(planned: dict[str, Any]) -> None:
    ranges = {entry["figure"]: entry for entry in planned["ranges"]}
    assert set(ranges) == {"size", "latency.p50", "peak_memory"}
    for entry in ranges.values():
        assert entry["dense"]["kind"] == "measured"
        assert entry["alone"]["kind"] == "estimated"
        assert 0 < entry["alone"]["value"] < entry["dense"]["value"]
    # 4 channels of 32 and of 48 at least: (9·4 + 4) + (4·9·4 + 4) + (4·16·10 + 10) parameters, and the file's frame.
    smallest = (40 + 148 + 650) * 4
    assert smallest < ranges["size"]["alone"]["value"] < smallest + 4000
    assert ranges["size"]["limit"] == ranges["size"]["dense"]["value"] / 2
    assert ranges["size"]["error"] < 0.05
    assert ranges["latency.p50"]["limit"] is None


def test_a_budget_within_reach_is_feasible(planned: dict[str, Any]) -> None:
    assert planned["feasible"] == "yes"
    assert planned["relaxation"] is None
    assert planned["unplanned"] == []
    assert planned["dense"]["accuracy"]["value"] > 0.9
    assert (planned["groups"], planned["units"]) == (2, 80)
    assert [entry["reason"] for entry in planned["frozen"]] == ["is the model's output"]


def test_the_effort_is_timed(planned: dict[str, Any], own_places: Path) -> None:
    effort = planned["effort"]
    assert (effort["batches"], effort["epochs"], effort["short_epochs"], effort["measurements"]) == (21, 2, 1, 40)
    assert effort["fine_tuning_s"] == pytest.approx(effort["batch_s"] * 42)
    assert effort["short_s"] == pytest.approx(effort["batch_s"] * 21)
    assert effort["device_s"] == pytest.approx(effort["measurement_s"] * 40)
    assert effort["measurement_s"] > 1  # a second of warm-up
    assert planned["measured"] == 4
    cache = Path(planned["cache"])
    assert cache.is_relative_to(own_places)
    assert cache.stat().st_size > 1000


def test_an_infeasible_budget_has_its_least_relaxation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["plan", str(folder), "--max-size", "2kB", "--max-latency", "60% of dense", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["feasible"] == "no"
    size = next(entry for entry in report["ranges"] if entry["figure"] == "size")
    assert size["limit"] == 2000
    assert size["alone"]["value"] > 2000
    assert size["relaxed"] == pytest.approx(2000 * (1 + report["relaxation"]))
    assert size["relaxed"] >= size["alone"]["value"] * 0.999
    assert not (folder / "runs").exists()


def test_without_a_training_part_there_is_no_training_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = PROJECT.replace("task.py:Small", "task.py:NoTraining").replace(
        "budget: {size: 50% of dense, ", "budget: {"
    )
    write_project(tmp_path, project)
    assert run_cli(["plan", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "the budget limits nothing that can be predicted" in text
    assert "nothing is trained: there is no training part" in text
    assert "smallest, predicted" in text
    assert "no run was begun; timings of operators are kept in" in text
    assert "2 channel groups with 80 units can be narrowed" in text


def test_a_task_that_raises_is_told(folder: Path, tmp_path: Path) -> None:
    write_project(tmp_path)
    task = (
        (tmp_path / "task.py")
        .read_text()
        .replace("def evaluate(self, model):", "def evaluate(self, model):\n        1 / 0")
    )
    (tmp_path / "task.py").write_text(task)
    project = load_project(tmp_path)
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        plan(project, task=load_task(project.task, project.folder))


def test_effort_adds_up() -> None:
    effort = Effort(3.0, 1.0, 40, batch_s=0.5, batches=10, epochs=12, short_epochs=2)
    assert (effort.device_s, effort.fine_tuning_s, effort.short_s) == (120.0, 60.0, 10.0)
    assert (Effort(3.0, 1.0, 40).fine_tuning_s, Effort(3.0, 1.0, 40).short_s) == (None, None)
