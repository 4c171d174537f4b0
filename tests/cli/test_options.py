"""What all commands do with their arguments."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from edgeprune.cli.main import run_cli


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["run", ""], "[PROJECT]"),
        (["run", "--run-dir", ""], "--run-dir"),
        (["plan", ""], "[PROJECT]"),
        (["sweep", ""], "[PROJECT]"),
        (["watch", ""], "[RUN]"),
        (["report", ""], "RUN"),
        (["explain", ""], "SOURCE"),
        (["check", ""], "RUN|ARTIFACT"),
        (["diff", "a", ""], "B"),
        (["verify", ""], "DENSE|DIR"),
        (["package", "a", "", "--for", "c", "-o", "x"], "[NAME=]RUN..."),
        (["package", "a", "--for", "c", "-o", ""], "-o"),
        (["device", "probe", ""], "TARGET"),
    ],
)
def test_an_empty_argument_is_not_the_current_folder(
    arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(arguments) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("error: Invalid value for ")
    assert name in first
    assert first.endswith("it is empty; is a variable of the shell not set?")


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "empty.json"],
        ["report", "task.py"],
        ["report", "run", "--html", "x.html"],
        ["diff", "empty.json", "nosuch"],
        ["diff", "package", "package"],
        ["check", "run"],
        ["check", "run", "--recorded"],
        ["package", "run", "--for", "c", "-o", "x"],
        ["measure", "--replay", "empty.json"],
    ],
)
def test_a_named_file_that_is_not_readable_is_a_wrong_file(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {"empty.json": "", "task.py": "class Digits: ...\n", "run/result.json": "{"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/manifest.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert run_cli(arguments) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(("name", "command"), [("q.tar", "tar -xf"), ("my q.tar.gz", "tar -xf"), ("q.zip", "unzip")])
def test_an_archive_is_to_be_unpacked_before_it_is_verified(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"")
    assert run_cli(["verify", str(tmp_path / name)]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: {tmp_path / name} is an archive"
    assert hint == f"hint: unpack it first: {command} {shlex.quote(str(tmp_path / name))}, and name the folder in it"
