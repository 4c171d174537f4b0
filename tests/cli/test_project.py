"""init, run and report, with a network that trains in a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from edgeprune.cli.main import run_cli
from edgeprune.cli.project import resume_command
from edgeprune.search.journal import Journal
from tests.pipeline.small_project import PROJECT, write_project

COARSE = PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"), COARSE).parent


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        assert run_cli(["run", "--run-dir", "runs/first"]) == 0  # from inside, with a relative folder
    return project / "runs" / "first"


def test_init_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["init", str(tmp_path / "mine"), "--example", "digits"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next: edgeprune run {tmp_path / 'mine'}"
    assert run_cli(["init", str(tmp_path / "new"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(tmp_path / "new"),
        "files": [str(tmp_path / "new" / name) for name in ("edgeprune.yaml", "task.py")],
    }
    assert run_cli(["init", str(tmp_path / "new")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_next_command_can_be_copied_into_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["init", str(tmp_path / "my project"), "--example", "digits"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next: edgeprune run '{tmp_path}/my project'"
    assert run_cli(["init", str(tmp_path / "its project")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"edgeprune run '{tmp_path}/its project'")


def test_a_run_ends_with_a_result_and_a_model_that_runs(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["status"] == "accepted"
    files = list((finished / "best").glob("*.onnx"))
    assert len(files) == 1
    assert onnxruntime.InferenceSession(files[0]).get_outputs()[0].shape[1] == 10


def test_report_shows_it_as_text_and_as_json(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["report", str(finished)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("ACCEPTED")
    assert str(finished / "result.json") in text
    assert str(finished / "best") in text
    assert run_cli(["report", str(finished / "result.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((finished / "result.json").read_text())


def test_resuming_a_finished_run_repeats_nothing_and_gives_the_same(
    finished: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "journal.jsonl").read_bytes()
    first = json.loads((finished / "result.json").read_text())
    assert run_cli(["run", str(project), "--resume", "--json"]) == 0
    captured = capsys.readouterr()
    again: dict[str, Any] = json.loads(captured.out)
    assert f"run folder: {finished}" in captured.err
    assert (finished / "journal.jsonl").read_bytes() == before
    assert again.pop("run_dir") == str(finished)
    assert again["best"] == first["best"]


def test_the_report_of_a_project_is_that_of_its_latest_run(
    finished: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for named in (project, project / "edgeprune.yaml"):
        assert run_cli(["report", str(named)]) == 0
        assert str(finished / "result.json") in capsys.readouterr().out
    shutil.copytree(project, tmp_path / "my copy", ignore=shutil.ignore_patterns("runs"))
    assert run_cli(["report", str(tmp_path / "my copy")]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[0] == f"error: there is no run in {tmp_path}/my copy/runs"
    assert err[1] == f"hint: start one: edgeprune run '{tmp_path}/my copy'"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--run-dir", "FINISHED"], "already holds a run with"),
        (["--run-dir", "FINISHED", "--resume", "--seed", "5"], "other inputs: search.seed was 0, is now 5"),
        (["--run-dir", "LOCKED", "--resume"], "another run is working in this folder"),
        (["--target", "ssh://pi@:99999"], "Port out of range"),
        (["--strategy", "unifrom"], "unknown strategy 'unifrom'"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_before_the_task_is_loaded(
    *,
    option: list[str],
    message: str,
    finished: Path,
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    (tmp_path / "copy/task.py").write_text("raise SystemExit('the task was loaded')")
    inputs = json.loads((finished / "journal.jsonl").read_text().splitlines()[0])["inputs"]
    inputs["device"]["profile"] = str(tmp_path / "copy/quick.yaml")
    with Journal.open(tmp_path / "locked", inputs):
        places = {"FINISHED": str(finished), "LOCKED": str(tmp_path / "locked")}
        given = [places.get(text, text) for text in option]
        if "FINISHED" in option:
            given += ["--profile", str(project / "quick.yaml")]
        assert run_cli(["run", str(tmp_path / "copy"), *given]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "the task was loaded" not in err
    assert "resume with:" not in err
    assert not (tmp_path / "copy/runs").exists()


def test_an_empty_budget_is_said_with_its_line(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    file = tmp_path / "copy/edgeprune.yaml"
    file.write_text("task: task.py:Small\nbudget: {accuracy: {max_drop: 1pp}}\n")
    assert run_cli(["run", str(tmp_path / "copy")]) == 2
    message = f"error: {file}:2:9: budget: the budget limits nothing that the device measures"
    assert message in capsys.readouterr().err.splitlines()
    assert run_cli(["run", str(tmp_path / "copy"), "--max-size", "1B", "--strategy", "?"]) == 2
    assert "limits nothing" not in capsys.readouterr().err


def test_a_task_that_fails_in_a_run_can_be_mended_and_the_run_resumed(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    file = tmp_path / "copy/task.py"
    text = file.read_text()
    file.write_text(text.replace("    def train_batches(self):\n", "    def train_batches(self):\n        1 / 0\n"))
    command = ["run", str(tmp_path / "copy"), "--run-dir", str(tmp_path / "run")]
    assert run_cli(command) == 2
    err = capsys.readouterr().err.splitlines()
    assert "train_batches() of task.py:Small raised ZeroDivisionError" in " ".join(err)
    assert err[-1] == f"resume with: edgeprune run {tmp_path / 'copy'} --resume --run-dir {tmp_path / 'run'}"
    file.write_text(text)
    assert run_cli([*command, "--resume"]) == 0
    assert "warning: changed since the run began: task.py" in capsys.readouterr().err


def test_a_damaged_journal_asks_for_a_new_folder_and_not_to_resume(
    finished: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    with (tmp_path / "run/journal.jsonl").open("a") as file:
        file.write("nonsense\n")
    assert run_cli(["run", str(project), "--resume", "--run-dir", str(tmp_path / "run")]) == 3
    err = capsys.readouterr().err
    assert "start again in a new folder" in err
    assert "resume with" not in err


def test_an_infeasible_budget_is_exit_code_4_and_says_what_was_reached(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", str(project), "--run-dir", str(tmp_path / "run"), "--max-latency", "1us", "--json"]
    assert run_cli(command) == 4
    data = json.loads(capsys.readouterr().out)
    assert data["status"] == "infeasible"
    assert "latency.p50" in data["reachable"]
    assert data["budget"]["latency"] == {"p50": "1us"}
    assert data["budget"]["size"] == "50% of dense"


def test_a_typo_in_the_project_file_is_named_with_its_line(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    file = tmp_path / "copy" / "edgeprune.yaml"
    file.write_text(file.read_text().replace("budget:", "budgte:"))
    assert run_cli(["run", str(tmp_path / "copy")]) == 2
    err = capsys.readouterr().err
    assert f"{file}:4" in err
    assert "did you mean 'budget'?" in err
    assert not (tmp_path / "copy" / "runs").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--max-latency", "30"], "--max-latency: "),
        (["--strategy", "unifrom"], "did you mean 'uniform'?"),
        (["--profile", "raspberry-pi-6"], "raspberry-pi-"),
        (["--target", "ssh:/board"], "is not a target"),
    ],
)
def test_wrong_options_are_usage_errors(
    option: list[str], message: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["run", str(project), "--run-dir", str(tmp_path / "run"), *option]) == 2
    assert message in capsys.readouterr().err


def test_an_unreachable_host_is_exit_code_3_and_leaves_no_folder(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    command = ["run", str(project), "--run-dir", str(run_dir), "--target", "ssh://nobody@127.0.0.1:1"]
    assert run_cli(command) == 3
    assert not run_dir.exists()
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    assert run_cli(["run", str(tmp_path / "copy"), *command[4:]]) == 3
    assert not (tmp_path / "copy" / "runs").exists()
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("error: ") and "127.0.0.1" in line for line in lines)
    assert not run_dir.exists()
    assert "resume with" not in " ".join(lines)


def test_nothing_to_resume_is_said(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    assert run_cli(["run", str(tmp_path / "copy"), "--resume"]) == 2
    assert "there is no run in" in capsys.readouterr().err


def test_a_report_of_nothing_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["report", str(tmp_path)]) == 2
    assert "there is no result in" in capsys.readouterr().err
    (tmp_path / "journal.jsonl").write_text("")
    assert run_cli(["report", str(tmp_path)]) == 2
    assert f"--resume --run-dir {tmp_path}" in capsys.readouterr().err
    for text, message in (("{", "cannot be read"), ("[]", "is not a result"), ("{}", "unknown schema None")):
        (tmp_path / "result.json").write_text(text)
        assert run_cli(["report", str(tmp_path)]) == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: {tmp_path}/result.json")
        assert message in error
        assert f"--resume --run-dir {tmp_path}" in hint
    (tmp_path / "model.onnx").write_bytes(b"\xff")
    (tmp_path / "journal.jsonl").unlink()
    assert run_cli(["report", str(tmp_path / "model.onnx")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "hint: name a run's folder, or its result.json"


def test_the_command_that_resumes_keeps_all_other_options() -> None:
    given = ("run", "my project", "--run-dir", "old", "--seed", "1", "--resume", "--run-dir=older")
    assert resume_command(given, Path("new")) == (
        "edgeprune", "run", "my project", "--seed", "1", "--resume", "--run-dir", "new",
    )  # fmt: skip


def test_the_help_names_every_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "milp (the default), evolutionary, greedy, netadapt, uniform" in text
