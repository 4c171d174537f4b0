"""A run that plans: what it learns of model and device, what comes out of it, and that a resumed one plans the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import CheckedTask, load_task
from edgeprune.records.project import Project, load_project
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.journal import read_trials
from tests.pipeline.small_project import PROJECT, write_project

PLANNED = PROJECT.replace("strategy: uniform, round_to: 4", "strategy: milp, round_to: 8")
JOINT = PLANNED.replace("size: 50% of dense,", "size: 60% of dense, latency: {p50: 50ms}, peak_memory: 1GB,")


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "device.lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return load_project(write_project(tmp_path / "project", PLANNED))


@pytest.fixture
def task(project: Project) -> CheckedTask:
    return load_task(project.task, project.folder)


def _key(trial: Trial) -> tuple[int, Stage, str, float | None]:
    return trial.number, trial.stage, trial.candidate.id, trial.figures["accuracy"].value


def test_a_planned_run_is_accepted_and_one_that_was_cut_short_plans_the_same(
    project: Project, task: CheckedTask, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    result = run(project, task=task, run_dir=whole)
    assert result.status == "accepted"
    assert result.strategy == "milp"
    best, dense = result.best, result.dense
    assert best is not None
    assert best.stage is Stage.FINAL
    assert best.figures["size"].value <= 0.5 * dense.figures["size"].value  # type: ignore[operator]
    losses = json.loads((whole / "sensitivities.json").read_text())["losses"]
    assert len(losses) == 6  # 32 units tried at 8, 16 and 24; 48 at 8 (also a quarter), 24 and 32 (as near to 36 as 40)
    assert not (whole / "costs.json").exists()  # the budget limits nothing that operators would tell
    trials = read_trials(whole)
    assert sum(trial.stage.is_measured for trial in trials) <= 25
    assert any(trial.stage is Stage.TUNE for trial in trials)

    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    lines = (whole / "journal.jsonl").read_text().splitlines(keepends=True)
    (cut / "journal.jsonl").write_text("".join(lines[:4]))
    data = json.loads((cut / "sensitivities.json").read_text())
    first = next(iter(data["losses"]))
    del data["losses"][first]  # stopped while it was learning: only what is missing is judged again
    (cut / "sensitivities.json").write_text(json.dumps(data))
    shutil.rmtree(tmp_path / "cache" / "edgeprune" / "sensitivities")
    again = run(project, task=task, run_dir=cut, resume=True)
    assert json.loads((cut / "sensitivities.json").read_text())["losses"][first] == pytest.approx(losses[first])
    assert [_key(trial) for trial in read_trials(cut)] == [_key(trial) for trial in trials]
    assert again.best is not None
    assert again.best.candidate.id == best.candidate.id


def test_operators_are_timed_once_per_device(project: Project, task: CheckedTask, tmp_path: Path) -> None:
    path = project.path.with_name("joint.yaml")
    path.write_text(JOINT)
    joint = load_project(path)
    joint = replace(joint, recovery=replace(joint.recovery, epochs=1))
    result = run(joint, task=task, run_dir=tmp_path / "one")
    assert result.status == "accepted"
    timed = json.loads((tmp_path / "one" / "costs.json").read_text())["operators"]
    # One of nothing, 4 widths into 1, 4 x 6 into each other, 6 into the linear layer.
    assert len(timed) == 1 + 4 + 24 + 6
    assert all(entry["error"] == "" and entry["ns"] > 0 for entry in timed.values())
    (cache,) = (tmp_path / "cache" / "edgeprune" / "costs").iterdir()
    kept = {entry["key"] for entry in map(json.loads, cache.read_text().splitlines()) if "key" in entry}
    run(joint, task=task, run_dir=tmp_path / "two")
    again = json.loads((tmp_path / "two" / "costs.json").read_text())["operators"]
    # Those whose two passes disagreed are not kept, and are timed again: how many depends on what else runs here.
    assert kept
    assert {key: again[key]["ns"] for key in kept} == {key: timed[key]["ns"] for key in kept}
    told = [entry for entry in map(json.loads, cache.read_text().splitlines()) if "key" in entry]
    assert len({entry["key"] for entry in told}) == len(told)  # none is timed a second time
    assert result.explanation is not None
