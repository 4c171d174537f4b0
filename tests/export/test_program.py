from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from edgeprune.export import program
from edgeprune.export.environment import Environment, Installation
from edgeprune.export.program import ProgramError, call, close_all

TOOL = """
import os, signal, sys, time

def add(a, b):
    print("adding", flush=True)
    open("sum.txt", "w").write(str(a + b))
    return {"sum": a + b, "pid": os.getpid(), "folder": os.getcwd(), "path": os.environ.get("PYTHONPATH")}

def fail():
    raise ValueError("the operator aten.nonsense is not known\\nand more of it")

def die():
    print("the last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

def sleep(seconds):
    time.sleep(seconds)
    return {}

def strange():
    return [1, 2]

OPERATIONS = {"add": add, "fail": fail, "die": die, "sleep": sleep, "strange": strange}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """This interpreter as an environment with one program."""
    folder = tmp_path / "programs"
    folder.mkdir()
    shutil.copy(program.PROGRAMS / "serve.py", folder)
    (folder / "tool.py").write_text(TOOL)
    (folder / "broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.setattr(program, "PROGRAMS", folder)
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    kind = Environment("tool", "a tool", (), (), (), 0, 0)
    yield Installation(kind, Path(sys.executable), "3", {}, "a test")  # type: ignore[misc]
    close_all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def test_a_program_answers_again_and_again_in_the_folder_that_it_is_given(here: Installation, folder: Path) -> None:
    first = call(here, "tool", folder, do="add", a=2, b=3)
    assert first["sum"] == 5
    assert first["folder"] == str(folder)
    assert first["path"] is None  # this process's packages are not the other's
    assert (folder / "sum.txt").read_text() == "5"
    assert (folder / "said.txt").read_text() == "adding\n"
    other = folder / "other"
    other.mkdir()
    second = call(here, "tool", other, do="add", a=1, b=1)
    assert (second["pid"], second["folder"]) == (first["pid"], str(other))


def test_what_it_raises_is_told_in_one_line_and_it_lives_on(here: Installation, folder: Path) -> None:
    pid = call(here, "tool", folder, do="add", a=0, b=0)["pid"]
    with pytest.raises(ProgramError, match=r"^ValueError: the operator aten\.nonsense is not known$") as caught:
        call(here, "tool", folder, do="fail")
    assert caught.value.kind == "ValueError"
    assert "Traceback" in (folder / "said.txt").read_text()
    assert call(here, "tool", folder, do="add", a=0, b=0)["pid"] == pid


def test_one_that_dies_is_told_with_its_last_words_and_begun_anew(here: Installation, folder: Path) -> None:
    pid = call(here, "tool", folder, do="add", a=0, b=0)["pid"]
    with pytest.raises(ProgramError, match=f"was ended by signal {int(signal.SIGSEGV)}: .*the last words"):
        call(here, "tool", folder, do="die")
    assert call(here, "tool", folder, do="add", a=0, b=0)["pid"] != pid
    os.kill(call(here, "tool", folder, do="add", a=0, b=0)["pid"], signal.SIGKILL)  # between two requests
    assert call(here, "tool", folder, do="add", a=4, b=4)["sum"] == 8


def test_one_that_does_not_answer_is_ended(here: Installation, folder: Path) -> None:
    pid = call(here, "tool", folder, do="add", a=0, b=0)["pid"]
    started = time.monotonic()
    with pytest.raises(ProgramError, match="did not answer within 0 s"):
        call(here, "tool", folder, do="sleep", seconds=60, timeout_s=0.3)
    assert time.monotonic() - started < 30
    assert not psutil.pid_exists(pid)


def test_one_that_cannot_start_says_why(here: Installation, folder: Path) -> None:
    with pytest.raises(ProgramError, match=r"failed \(1\): .*a_package_that_is_not_there"):
        call(here, "broken", folder, do="add")
    gone = Installation(here.environment, Path("/nowhere/python"), "3", {}, "a test")
    with pytest.raises(ProgramError, match="cannot start /nowhere/python") as caught:
        call(gone, "tool", folder, do="add")
    assert caught.value.hint == "edgeprune doctor --install tool"


def test_an_answer_that_is_no_object_is_refused(here: Installation, folder: Path) -> None:
    with pytest.raises(ProgramError, match="answer cannot be read"):
        call(here, "tool", folder, do="strange")


def test_nothing_is_left_when_all_are_closed(here: Installation, folder: Path) -> None:
    pid = call(here, "tool", folder, do="add", a=0, b=0)["pid"]
    assert psutil.pid_exists(pid)
    close_all()
    assert not psutil.pid_exists(pid)
