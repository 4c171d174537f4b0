"""The scripts in the shells that this machine has, with as little beside them as a board may have."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from edgeprune.errors import UsageError
from edgeprune.targets import shell

SHELLS = [path for name in ("dash", "bash", "busybox", "mksh") if (path := shutil.which(name))]
WORDS = [
    "",
    "a b",
    "'",
    '"',
    "$HOME",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "&",
    "*",
    "~",
    "#",
    "-n",
    "--",
]
WORDS += ["\\", "\\\\n", "\\0101", "it\\'s", "!x", "!!", "%s", "ä€", "a\tb", "\x01\x7f", "{a,b}", "^x", "\udcff"]
CONTENT = bytes(range(256)) * 100


def run(path: str, script: str, *arguments: str, tools: Path | None = None, data: bytes = b"") -> list[str]:
    argv = [path, *(["sh"] if path.endswith("busybox") else []), "-c", script, "sh", *arguments]
    environment = {**os.environ, **({"PATH": str(tools)} if tools else {})}
    done = subprocess.run(argv, input=data, check=False, capture_output=True, env=environment)
    return list(shell.answers(b"Welcome!\n" + done.stdout))


@pytest.mark.parametrize("path", SHELLS)
def test_folder_and_first_interpreter(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder, interpreter = run(path, shell.OPEN, "no-such-python", "sh")
    assert Path(folder).parent == tmp_path
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert interpreter.endswith("sh")
    assert len(run(path, shell.OPEN, "no-such-python")) == 1


@pytest.fixture(params=[True, False], ids=["sha256sum", "no-sha256sum"])
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("cat", "mv", "printf", "rm", "wc", *(["sha256sum"] if request.param else [])):
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


@pytest.mark.parametrize("path", SHELLS)
def test_files_are_taken_up_again_checked_and_renamed(path: str, tools: Path, tmp_path: Path) -> None:
    part, whole = tmp_path / "a b.part", tmp_path / "a b"
    digest = hashlib.sha256(CONTENT).hexdigest()

    def check(digest: str) -> list[str]:
        return run(path, shell.CHECK, str(part), str(whole), digest, sys.executable, tools=tools)

    def state() -> list[str]:
        return run(path, shell.STATE, str(part), sys.executable, tools=tools)

    assert state() == ["0 -"]
    run(path, shell.RECEIVE, str(part), "0", tools=tools, data=CONTENT[:1000])
    assert state() == [f"1000 {hashlib.sha256(CONTENT[:1000]).hexdigest()}"]
    run(path, shell.RECEIVE, str(part), "1000", tools=tools, data=CONTENT[1000:])
    assert part.stat().st_mode & 0o777 == 0o600
    assert check(digest) == ["stored"]
    assert whole.read_bytes() == CONTENT
    run(path, shell.RECEIVE, str(part), "0", tools=tools, data=CONTENT[:-1])
    assert check(digest)[0].startswith(hashlib.sha256(CONTENT[:-1]).hexdigest())
    assert whole.read_bytes() == CONTENT
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a b", "tools"]


@pytest.mark.parametrize("path", SHELLS)
def test_receiver_of_a_broken_link_is_ended(path: str, tmp_path: Path) -> None:
    """It would go on writing what is still on its way, into what the next one sends."""
    part = tmp_path / "file.part"
    argv = [path, *(["sh"] if path.endswith("busybox") else []), "-c", shell.RECEIVE, "sh", str(part), "0"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as old:
        assert old.stdin is not None
        old.stdin.write(b"begun")
        old.stdin.flush()
        end = time.monotonic() + 10
        while not (part.exists() and part.read_bytes() == b"begun") and time.monotonic() < end:
            time.sleep(0.01)
        assert run(path, shell.STATE, str(part), sys.executable) == [f"5 {hashlib.sha256(b'begun').hexdigest()}"]
        assert old.wait(timeout=10) == -9
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        (tmp_path / "file.part.pid").write_text(f"{bystander.pid}\n")
        run(path, shell.STATE, str(part), sys.executable)
        assert bystander.poll() is None  # a process id of long ago
    finally:
        bystander.kill()
        bystander.wait()
    assert run(path, shell.STATE, str(tmp_path / "no" / "file.part"), sys.executable) == ["gone"]


@pytest.mark.parametrize("path", SHELLS)
def test_folder_goes_with_its_receiver_while_files_still_come(path: str, tmp_path: Path) -> None:
    """What a broken link had held up begins when the folder is removed."""
    folder = tmp_path / "folder"
    folder.mkdir()
    argv = [path, *(["sh"] if path.endswith("busybox") else []), "-c", shell.RECEIVE, "sh", str(folder / "a.part"), "0"]

    def create() -> None:
        with contextlib.suppress(FileNotFoundError):
            for number in range(5000):
                (folder / f"{number}").touch()
                time.sleep(1e-4)

    with subprocess.Popen(argv, stdin=subprocess.PIPE) as receiver:
        while not (folder / "a.part").exists():
            time.sleep(0.01)
        creating = threading.Thread(target=create)
        creating.start()
        run(path, shell.REMOVE, str(folder))
        assert not folder.exists()
        creating.join()
        assert not folder.exists()
        assert receiver.wait(timeout=10) == -9


@pytest.mark.parametrize("path", SHELLS)
def test_kill_takes_the_group(path: str, tmp_path: Path) -> None:
    group = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $$ > pid; wait"], cwd=tmp_path, start_new_session=True)
    for _ in range(500):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            break
        subprocess.run(["sleep", "0.01"], check=True)
    run(path, shell.KILL, str(tmp_path / "pid"))
    assert group.wait(timeout=5) == -9
    left = [
        process for process in psutil.process_iter() if process.status() != "zombie" and _group(process) == group.pid
    ]
    assert psutil.wait_procs(left, timeout=5)[1] == []


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


@pytest.mark.parametrize("path", SHELLS)
def test_free_space(path: str, tmp_path: Path) -> None:
    (free,) = run(path, shell.FREE, str(tmp_path))
    assert int(free) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)


LOGIN_SHELLS = [
    (path, *arguments)
    for name, *arguments in (["dash"], ["bash"], ["busybox", "sh"], ["mksh"], ["zsh"], ["fish"], ["tcsh"])
    if (path := shutil.which(name))
]


@pytest.mark.parametrize("login_shell", LOGIN_SHELLS, ids=lambda argv: Path(argv[0]).name)
def test_every_word_survives_the_login_shell(login_shell: tuple[str, ...], tmp_path: Path) -> None:
    line = shell.command(f'for w in "$@"; do printf \'{shell.MARK}%s\\n\' "$w"; done', *WORDS)
    done = subprocess.run([*login_shell, "-c", line], check=True, capture_output=True, cwd=tmp_path)
    assert list(shell.answers(done.stdout)) == WORDS
    argv = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *WORDS, "a\nb\n"]
    line = shell.command(shell.START, str(tmp_path), "pid", *argv)
    done = subprocess.run([*login_shell, "-c", line], check=True, capture_output=True, cwd=tmp_path)
    assert json.loads(done.stdout.partition(shell.STARTED)[2]) == [*WORDS, "a\nb\n"]
    assert [file.name for file in tmp_path.iterdir()] == ["pid"]
    assert set(line) <= set(map(chr, range(0x20, 0x7F)))


def test_command_lines_have_a_limit() -> None:
    assert len(shell.command(shell.START, "/tmp/folder", "/tmp/pid", "x" * 6000)) < 8192
    with pytest.raises(UsageError, match="bytes is too long for a device"):
        shell.command(shell.START, "/tmp/folder", "/tmp/pid", "x" * 8000)


def test_nul_is_refused() -> None:
    with pytest.raises(UsageError, match="NUL"):
        shell.command("true", "a\0b")
