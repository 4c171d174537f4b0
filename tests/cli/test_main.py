"""The error boundary: every exception becomes one message, one hint and one exit code."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from edgeprune import errors
from edgeprune.cli import main as boundary
from edgeprune.cli.main import cli, run_cli

COMMANDS = [
    *("init", "run", "watch", "report", "advise", "plan", "sweep", "explain", "prune", "sparsify", "verify", "export"),
    *("measure", "package", "check", "diff", "device", "doctor", "completion"),
]
DEVICE_COMMANDS = ["setup", "check", "remove", "list", "show", "schema", "probe", "trust"]


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Makes the command `fail`, which raises what it is given, in a run that has begun or has not."""

    def register(error: BaseException, *, begun: bool = True) -> None:
        if begun:
            (tmp_path / "journal.jsonl").touch()

        @click.command("fail")
        @click.pass_obj
        def fail(invocation: boundary.Invocation) -> None:
            invocation.run_dir = tmp_path
            invocation.resume = ("edgeprune", "run", "my project", "--resume")
            raise error

        monkeypatch.setitem(cli.commands, "fail", fail)

    return register


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("it is wrong", hint="do this"), 2),
        (errors.ConfigError("it is wrong", hint="do this"), 2),
        (errors.UnitError("it is wrong", hint="do this"), 2),
        (errors.TaskError("it is wrong", hint="do this"), 2),
        (errors.CaptureError("it is wrong", hint="do this"), 2),
        (errors.UnreadableError("it is wrong", hint="do this"), 2),
        (errors.CannotMeasureError("it is wrong", hint="do this"), 3),
        (errors.TargetError("it is wrong", hint="do this"), 3),
        (errors.HostKeyError("it is wrong", hint="do this"), 3),
        (errors.StorageError("it is wrong", hint="do this"), 3),
        (errors.DamagedError("it is wrong", hint="do this"), 3),
        (errors.ParityError("it is wrong", hint="do this"), 5),
        (errors.VerificationError("it is wrong", hint="do this"), 70),
    ],
)
def test_an_error_of_ours_is_a_message_a_hint_and_its_exit_code(
    error: errors.EdgepruneError, code: int, raising: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error)
    assert run_cli(["fail"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[:2] == ["error: it is wrong", "hint: do this"]
    # The same command cannot help against a wrong command, nor against a journal that does not read.
    hopeless = isinstance(error, (errors.UsageError, errors.DamagedError)) and not isinstance(error, errors.TaskError)
    assert lines[2:] == ([] if hopeless else ["resume with: edgeprune run 'my project' --resume"])


def test_what_has_not_begun_or_cannot_be_written_is_not_resumed(
    raising: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(errors.TargetError("gone"), begun=False)
    assert run_cli(["fail"]) == 3
    assert capsys.readouterr().err.splitlines() == ["error: gone"]
    raising(errors.StorageError("read-only"))
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode == os.W_OK))
    assert run_cli(["fail"]) == 3
    assert capsys.readouterr().err.splitlines() == ["error: read-only"]


def test_a_configuration_error_says_file_and_line(
    raising: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    raising(errors.ConfigError("unknown key 'taks'", path=Path("edgeprune.yaml"), line=3, column=1))
    assert run_cli(["fail"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "error: edgeprune.yaml:3:1: unknown key 'taks'"


def test_verbose_shows_the_whole_traceback(raising: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    raising(errors.TaskError("it is wrong"))
    for arguments in (["-v", "fail"], ["fail", "-v"]):
        assert run_cli(arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("Traceback")
        assert "raise error" in err
        assert "error: it is wrong" in err.splitlines()
        assert err.count("it is wrong") == 1


def test_v_counts_before_and_after_the_command(
    raising: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    raising(errors.UsageError("it is wrong"))
    for arguments, level in ((["fail"], logging.WARNING), (["-v", "fail", "-v"], logging.DEBUG)):
        assert run_cli(arguments) == 2
        assert logging.getLogger().level == level
    assert "Traceback" in capsys.readouterr().err
    for command in (["run"], ["device", "list"]):
        assert run_cli([*command, "--help"]) == 0
        assert capsys.readouterr().out.count("--verbose") == 1


def test_a_bug_is_a_traceback_and_exit_code_70(
    raising: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    raising(ZeroDivisionError("who divides?"))
    assert run_cli(["fail"]) == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError: who divides?" in err
    assert "Traceback" in err
    assert "this is a bug in edgeprune" in err.splitlines()[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_not_a_bug(
    number: int, raising: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    raising(OSError(number, os.strerror(number), "/runs/1/model.onnx"))
    assert run_cli(["fail"]) == 3
    err = capsys.readouterr().err.splitlines()
    assert err[0] == f"error: cannot write /runs/1/model.onnx: {os.strerror(number)}"
    assert err[1].endswith("choose another folder")
    assert ("free some space" in err[1]) == (number != errno.EROFS)
    assert err[2].startswith("resume with: ")


def test_other_errors_of_the_system_are_bugs(raising: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    raising(FileNotFoundError(errno.ENOENT, "gone", "x"))
    assert run_cli(["fail"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_says_how_to_resume(raising: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    raising(KeyboardInterrupt())
    assert run_cli(["fail"]) == 130
    assert capsys.readouterr().err.splitlines() == [
        "interrupted",
        "resume with: edgeprune run 'my project' --resume",
    ]


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (["rum"], "there is no command 'rum', did you mean 'run'?", "edgeprune"),
        (["device", "lost"], "there is no command 'lost', did you mean 'list'?", "edgeprune device"),
        (["measure"], "give a file to measure, or --replay a recording", "edgeprune measure"),
        (["run", "--sead", "1"], "No such option '--sead'", "edgeprune run"),
        (["run", "--seed", "one"], "Invalid value for '--seed': 'one' is not a valid integer.", "edgeprune run"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    arguments: list[str], message: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(arguments) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {message}")
    assert second == f"hint: {command} --help says what is possible"


@pytest.mark.parametrize("command", [[], *[[c] for c in COMMANDS], *[["device", c] for c in DEVICE_COMMANDS]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: edgeprune " + " ".join(command))
    if command not in ([], ["device"]):
        assert "--json" in out


def test_the_commands_are_the_documented_ones() -> None:
    context = click.Context(cli)
    assert cli.list_commands(context) == COMMANDS
    group = cli.get_command(context, "device")
    assert isinstance(group, click.Group)
    assert group.list_commands(context) == DEVICE_COMMANDS


def test_no_command_shows_the_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run_cli(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("edgeprune")


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeprune", "device", "schema"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        said = stderr.read()
    assert process.wait(timeout=30) == 141
    assert said == ""


@pytest.mark.parametrize("closed", ["1", "2", "0<&- 1"])
def test_a_closed_stream_is_no_error(closed: str) -> None:
    command = f'exec "$0" -m edgeprune device show raspberry-pi-5 {closed}>&-'
    process = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    assert ("BCM2712" in process.stdout) == (closed == "2")


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Else what is printed would be written into it."""
    program = (
        "import sys; from edgeprune.cli import main; main.run_cli = lambda a: open(a[0], 'w').fileno(); main.main()"
    )
    command = 'exec "$0" -c "$1" "$2" >&-'
    process = subprocess.run(["sh", "-c", command, sys.executable, program, str(tmp_path / "file")], check=False)
    assert process.returncode > 2


TASK = """
import time
import torch

class Slow:
    def model(self):
        self.wait("model")
        return torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
    def example_inputs(self):
        return torch.zeros(1, 2)
    def evaluate(self, model):
        self.wait("evaluate")
    def wait(self, part):
        if part == "PART":
            print(part, flush=True)
            time.sleep(60)
"""


@pytest.mark.parametrize(("number", "part"), [(signal.SIGINT, "evaluate"), (signal.SIGTERM, "model")])
def test_a_signal_in_a_run_ends_it_with_130_and_the_command_that_resumes(
    number: int, part: str, tmp_path: Path
) -> None:
    (tmp_path / "task.py").write_text(TASK.replace("PART", part))
    (tmp_path / "edgeprune.yaml").write_text("task: task.py:Slow\nbudget: {size: 50% of dense}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeprune", "run", ".", "--seed", "3", "--json", "--run-dir", "here"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "EDGEPRUNE_LOCK": str(tmp_path / "lock")},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == f"{part}\n"
    time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    resume = "resume with: edgeprune run . --seed 3 --json --resume --run-dir here"
    # Before the first line of the journal there is nothing to go on with, and nothing is left behind.
    assert err.splitlines()[-1] == (resume if part == "evaluate" else "interrupted")
    assert "interrupted" in err.splitlines()
    assert (tmp_path / "here").exists() == (part == "evaluate")
