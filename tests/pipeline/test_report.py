"""A report from what a folder holds; what is missing or damaged there is said, not guessed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune import atomic
from edgeprune.cli.main import run_cli
from edgeprune.errors import StorageError
from edgeprune.pipeline.report import read_view, write_report
from edgeprune.pipeline.trials import trial_folder
from edgeprune.records import codec
from edgeprune.search.journal import Journal
from tests.report.html.views import view


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of nine trials as it lies on disk, without a network."""
    run_dir = tmp_path_factory.mktemp("runs") / "20260102-030405"
    made = view(trials=9)
    with Journal.open(run_dir, {"budget": {}}) as journal:
        for trial in made.trials:
            journal.add(trial)
    for number, measurement in made.measurements.items():
        path = trial_folder(run_dir, number) / "measurement.json"
        atomic.write_text(path, json.dumps(codec.to_json(measurement)))
    result = replace(made.result, provenance={**made.result.provenance, "files": {}})
    assert made.structure is not None
    for name, data in (("result", codec.to_json(result)), ("structure", made.structure.to_json())):
        atomic.write_text(run_dir / f"{name}.json", json.dumps(data))
    return run_dir


def test_all_that_the_folder_holds_is_read(folder: Path) -> None:
    found, made = read_view(folder), view(trials=9)
    assert found.notes == ()
    assert (found.name, found.trials, found.structure) == ("20260102-030405", made.trials, made.structure)
    assert found.measurements.keys() == made.measurements.keys()
    first = found.measurements[0].latency
    assert first is not None
    assert first.raw_ms == made.measurements[0].latency.raw_ms  # type: ignore[union-attr]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no layers": (lambda run: (run / "structure.json").unlink(), "network's layers"),
    "half a measurement": (
        lambda run: (run / "trials/0000/measurement.json").write_text('{"schema": "edgeprune.meas'),
        "measurement of trial 0",
    ),
    "no journal": (lambda run: (run / "journal.jsonl").unlink(), "trials"),
    "layers of another version": (
        lambda run: (run / "structure.json").write_text('{"schema": "?"}'),
        "network's layers",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_cannot_be_read_is_left_out_and_said(name: str, folder: Path, tmp_path: Path) -> None:
    damage, said = DAMAGE[name]
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    damage(run)
    (note,) = read_view(run).notes
    assert note.startswith(f"The {said} could not be read, and is left out here: ")
    assert f"The {said} could not be read" in write_report(run).read_text().replace("&#x27;", "'")


def test_without_a_result_there_is_no_report(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    (run / "result.json").write_text(json.dumps(codec.to_json(view(trials=9).result.dense)))
    with pytest.raises(StorageError, match="not the result of a run"):
        write_report(run)
    (run / "result.json").unlink()
    with pytest.raises(StorageError, match="cannot read"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_the_command_writes_it_where_it_is_asked_to(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    assert run_cli(["report", str(run), "--html"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ACCEPTED")
    assert out.splitlines()[-1] == f"report: {run / 'report.html'}"
    assert run_cli(["report", str(run), "--html", str(tmp_path / "elsewhere.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "result.json").read_text())
    assert (tmp_path / "elsewhere.html").read_bytes() == (run / "report.html").read_bytes()
