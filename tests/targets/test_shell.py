"""The scripts in the shells that this machine has, with as little beside them as a board may have."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edgeprune.targets import shell

SHELLS = [path for name in ("sh", "dash", "bash", "busybox") if (path := shutil.which(name))]
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


@pytest.mark.parametrize("path", SHELLS)
@pytest.mark.parametrize("with_sha256sum", [True, False])
def test_files_are_checked_and_renamed(path: str, with_sha256sum: bool, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cat", "mv", "rm", *(["sha256sum"] if with_sha256sum else [])):
        (tools / name).symlink_to(str(shutil.which(name)))
    part, whole = tmp_path / "a b.part", tmp_path / "a b"
    digest = hashlib.sha256(CONTENT).hexdigest()
    stored = run(path, shell.RECEIVE, str(part), str(whole), digest, sys.executable, tools=tools, data=CONTENT)
    assert stored == ["stored"]
    assert whole.read_bytes() == CONTENT
    cut = run(path, shell.RECEIVE, str(part), str(whole), digest, sys.executable, tools=tools, data=CONTENT[:-1])
    assert cut[0].startswith(hashlib.sha256(CONTENT[:-1]).hexdigest())
    assert whole.read_bytes() == CONTENT
    assert not part.exists()


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


def test_every_word_survives_the_login_shell() -> None:
    words = ["a b", "$HOME", "'", "; id", "*", ""]
    line = shell.command(f'for w in "$@"; do printf \'{shell.MARK}%s\\n\' "$w"; done', *words)
    done = subprocess.run(["sh", "-c", line], check=True, capture_output=True)
    assert list(shell.answers(done.stdout)) == words
