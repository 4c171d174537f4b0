"""A run as its folder shows it: running, finished, or stopped; and nothing there is changed by looking."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeprune.errors import DamagedError, UsageError
from edgeprune.pipeline import begun as beginnings
from edgeprune.pipeline.begun import begun
from edgeprune.pipeline.watch import snapshot
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.journal import Journal

INPUTS: dict[str, Any] = {"budget": {"latency": {"p50": "60% of dense"}, "accuracy": {"max_drop": "2pp"}}}


def trial(number: int, latency_ms: float | None, accuracy: float, stage: Stage = Stage.MEASURE) -> Trial:
    figures = {"accuracy": Figure(accuracy, accuracy)}
    if latency_ms is not None:
        figures["latency.p50"] = Figure(latency_ms, latency_ms * 1.02)
    kept = Candidate({} if number == 0 else {"conv": tuple(range(number))})
    return Trial(number, stage, kept, "OK", figures, seconds=1.0)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """Four trials, and no result."""
    with begun(tmp_path / "run", max_trials=40) as note, Journal.open(tmp_path / "run", INPUTS) as journal:
        note(trials=0)
        journal.add(trial(0, 1.0, 0.95))
        journal.add_attempt(1, "LOST", "the link broke")
        journal.add(trial(1, 0.7, 0.90))
        journal.add(trial(2, None, 0.94, Stage.TUNE))
        journal.add(trial(3, 0.5, 0.94, Stage.FINAL))
    return tmp_path / "run"


def test_a_run_whose_journal_is_held_is_running_and_its_process_is_named(tmp_path: Path) -> None:
    with Journal.open(tmp_path, INPUTS) as journal:
        journal.add(trial(0, 1.0, 0.95))
        seen = snapshot(tmp_path)
        assert (seen.state, seen.pid) == ("running", os.getpid())
        assert seen.trials == journal.trials
    assert snapshot(tmp_path).state == "stopped"


def test_where_locks_are_not_listed_the_lock_itself_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "_lock_owner", lambda _: None)
    with Journal.open(tmp_path, INPUTS):
        assert (snapshot(tmp_path).state, snapshot(tmp_path).pid) == ("running", None)
    assert snapshot(tmp_path).state == "stopped"


def test_a_stopped_run_tells_what_it_came_to(stopped: Path) -> None:
    seen = snapshot(stopped)
    assert (seen.state, seen.pid, seen.now, seen.status) == ("stopped", None, "", "")
    assert (seen.measured, seen.max_trials, len(seen.trials)) == (3, 40, 4)
    assert seen.best is not None
    assert seen.best.number == 3
    assert seen.best_is == "within the budget"
    assert seen.check is not None
    assert [entry.state.value for entry in seen.check.limits] == ["met", "met"]
    assert seen.attempts == ({"kind": "attempt", "number": 1, "outcome": "LOST", "message": "the link broke"},)
    assert seen.last == "trial 3 ended"
    assert 0 <= (seen.last_age_s or 0) < 60
    assert 0 <= (seen.elapsed_s or 0) < 60
    assert json.loads(json.dumps(seen.to_json()))["best"]["number"] == 3


def test_a_line_that_is_being_written_is_not_there_yet(stopped: Path) -> None:
    journal = stopped / "journal.jsonl"
    whole = journal.read_bytes()
    last = whole.rstrip().rfind(b"\n") + 1
    for size in range(last, len(whole)):
        journal.write_bytes(whole[:size])
        assert [found.number for found in snapshot(stopped).trials] == [0, 1, 2]
    journal.write_bytes(whole)
    assert len(snapshot(stopped).trials) == 4


def test_a_damaged_line_is_named(stopped: Path) -> None:
    journal = stopped / "journal.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:2], lines[2][:20], *lines[3:]]) + "\n")
    with pytest.raises(DamagedError, match=r"journal\.jsonl:3: damaged journal"):
        snapshot(stopped)


def test_a_result_ends_a_run_but_one_of_fewer_trials_is_of_an_earlier_end(stopped: Path) -> None:
    (stopped / "result.json").write_text(json.dumps({"status": "infeasible", "trials": 4}))
    seen = snapshot(stopped)
    assert (seen.state, seen.status) == ("finished", "infeasible")
    (stopped / "result.json").write_text(json.dumps({"status": "infeasible", "trials": 3}))
    assert (snapshot(stopped).state, snapshot(stopped).status) == ("stopped", "")


def test_looking_changes_nothing_and_keeps_no_lock(stopped: Path) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in stopped.iterdir()}

    before = state()
    snapshot(stopped)
    assert state() == before
    with Journal.open(stopped, INPUTS, resume=True):
        assert snapshot(stopped).state == "running"
        assert state() == before


def test_what_is_being_done_follows_from_the_files_that_are_there(tmp_path: Path) -> None:
    def now() -> str:
        return snapshot(tmp_path).now

    def touch(name: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    with Journal.open(tmp_path, INPUTS) as journal:
        assert now() == "capturing the model"
        touch("trials/0000/candidate.json")
        assert now() == "evaluating the dense model"
        touch("trials/0000/model.onnx.manifest.json")
        assert now() == "measuring the dense model"
        journal.add(trial(0, 1.0, 0.95))
        assert now() == "learning the network before the first choice"
        touch("sensitivities.json")
        assert now().startswith("finding out what each narrowing costs")
        touch("costs.json")
        touch("trials/0001/candidate.json")
        assert now() == "building trial 1"
        touch("trials/0001/finetune.safetensors")
        assert now() == "fine-tuning trial 1"
        touch("trials/0001/model.tflite.manifest.json")
        assert now() == "measuring trial 1"
        journal.add(trial(1, 0.5, 0.95))
        assert now() == "choosing what to try next"


@pytest.mark.parametrize(("make", "hint"), [(False, "name the folder of a run"), (True, "try again in a moment")])
def test_a_folder_without_a_journal_is_no_run(tmp_path: Path, make: bool, hint: str) -> None:
    folder = tmp_path / "run"
    if make:
        folder.mkdir()
    with pytest.raises(UsageError, match="there is no run in") as error:
        snapshot(folder)
    assert hint in (error.value.hint or "")


def test_the_best_is_what_would_be_accepted_or_is_nearest_to_it(tmp_path: Path) -> None:
    int8 = {"quantised": {"scheme": "per-tensor"}}
    with Journal.open(tmp_path, INPUTS) as journal:

        def told(found: Trial) -> tuple[int, str]:
            journal.add(found)
            seen = snapshot(tmp_path)
            assert seen.best is not None
            return seen.best.number, seen.best_is

        assert told(trial(0, 1.0, 0.95)) == (0, "the dense model")
        dense = replace(trial(1, 0.65, 0.949, Stage.FINAL), candidate=Candidate(), details=int8)
        assert told(dense) == (1, "the dense model, int8")
        assert told(trial(2, 0.5, 0.50)) == (2, "the closest so far: within the limits of the device")
        assert told(trial(3, 0.55, 0.92)) == (3, "the closest so far: within the limits of the device")
        assert told(trial(4, 0.58, 0.94)) == (4, "within the budget, not yet fine-tuned")
        assert told(trial(5, 0.5, 0.925, Stage.FINAL)) == (4, "within the budget, not yet fine-tuned")
        assert told(trial(6, 0.5, 0.935, Stage.FINAL)) == (6, "within the budget")
        assert told(trial(7, 0.4, 0.931, Stage.FINAL)) == (6, "within the budget")
    result = {"status": "infeasible", "trials": 8, "best": {"number": 5}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    ended = snapshot(tmp_path)
    assert ended.best is not None
    assert ended.best.number == 5
