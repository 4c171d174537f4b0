from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeprune.cli.main import run_cli

PROGRAMS = Path(sys.executable).parent
_PATIENCE_S = 60.0


def shell_or_skip(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a project, two runs of it, and something else."""
    for folder in ("net/runs/20260101-120000", "net/runs/20260102-120000", "nets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "net" / "edgeprune.yaml").write_text("task: task.py:Net\n")
    for run in (tmp_path / "net" / "runs").iterdir():
        (run / "journal.jsonl").write_text("")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    path = f"{PROGRAMS}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "TERM": "dumb", "PS1": "> ", "LANG": "C.UTF-8"}


def typed(argv: list[str], setup: str, keys: str, folder: Path, until: str) -> str:
    """What a shell on a terminal shows after `keys`; it is read until it shows `until`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(argv[0], argv, environment(folder))
    shown = ""

    def read_until(text: str) -> None:
        nonlocal shown
        end = time.monotonic() + _PATIENCE_S
        while text not in shown.replace("\a", "") and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 1 << 16).decode("utf-8", "replace")

    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        read_until("ready\r\n")
        os.write(terminal, keys.encode())
        read_until(until)
        return shown.partition("ready\r\n")[2].replace("\a", "")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_bash_completes_commands_profiles_and_runs(project: Path) -> None:
    bash = [shell_or_skip("bash"), "--norc", "--noprofile", "-i"]
    setup = 'eval "$(edgeprune completion bash)"'
    assert "edgeprune sparsify " in typed(bash, setup, "edgeprune spa\t", project, "sparsify ")
    keys = "edgeprune run --profile raspberry-pi-z\t"
    assert "--profile raspberry-pi-zero-2-w " in typed(bash, setup, keys, project, "zero-2-w ")
    shown = typed(bash, setup, "edgeprune report net/runs/\t", project, "runs/2026010")
    assert "edgeprune report net/runs/2026010" in shown  # what both have in common


def test_zsh_completes(project: Path) -> None:
    zsh = [shell_or_skip("zsh"), "-f", "-i"]
    setup = 'autoload -Uz compinit; compinit -u; eval "$(edgeprune completion zsh)"'
    assert "evolutionary" in typed(zsh, setup, "edgeprune run --strategy evo\t", project, "evolutionary")


def test_fish_completes(project: Path) -> None:
    fish = shell_or_skip("fish")

    def offered(line: str) -> list[str]:
        command = f"edgeprune completion fish | source; complete -C {json.dumps(line)}"
        done = subprocess.run(
            [fish, "--no-config", "-c", command],
            cwd=project,
            env=environment(project),
            capture_output=True,
            text=True,
            check=True,
        )
        return [each.partition("\t")[0] for each in done.stdout.splitlines()]

    assert offered("edgeprune run --strategy ") == ["evolutionary", "greedy", "milp", "netadapt", "uniform"]
    assert offered("edgeprune report net/") == ["net/runs/20260101-120000", "net/runs/20260102-120000"]
    assert offered("edgeprune doctor --install tf") == ["tflite", "tflite-runtime"]


def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What the program itself answers a bash."""
    monkeypatch.setenv("_EDGEPRUNE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(("edgeprune", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit) as ended:
        run_cli([])
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


def test_names_first_and_files_where_there_are_none(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert offered(monkeypatch, capsys, "run", "n") == ["plain,net"]
    assert offered(monkeypatch, capsys, "report", "net/runs/20260102") == ["plain,net/runs/20260102-120000"]
    assert offered(monkeypatch, capsys, "report", str(project / "net/runs/20260102")) == [
        f"plain,{project}/net/runs/20260102-120000"
    ]
    assert offered(monkeypatch, capsys, "run", "z") == ["file,z"]
    assert offered(monkeypatch, capsys, "export", "x", "y.tflite", "--format", "tf") == ["plain,tflite"]


def test_the_script_is_for_the_shell_that_is_named_or_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run_cli(["completion", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["shell"] == "fish"
    assert "_EDGEPRUNE_COMPLETE=fish_complete" in told["script"]
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert run_cli(["completion"]) == 2
    assert "$SHELL is 'tcsh', for which there is no completion" in capsys.readouterr().err
