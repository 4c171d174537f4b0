"""What all commands do with their arguments."""

from __future__ import annotations

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
