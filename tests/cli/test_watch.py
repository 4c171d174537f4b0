"""Watching runs of other processes: a real one to its end, and one that can be held still and killed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.records.candidate import Candidate
from edgeprune.records.trial import Stage
from edgeprune.search.journal import Journal
from tests.pipeline.small_project import PROJECT, write_project
from tests.pipeline.test_watch import INPUTS, trial

WATCH = [sys.executable, "-m", "edgeprune", "watch"]

# A run that does a trial whenever it is told to, and goes on until it is killed.
RUN = """
import sys
from pathlib import Path
from edgeprune.pipeline.begun import begun
from edgeprune.search.journal import Journal
from tests.pipeline.test_watch import INPUTS, trial

folder = Path(sys.argv[1])
with begun(folder, max_trials=7) as note, Journal.open(folder, INPUTS) as journal:
    note(trials=0)
    journal.add(trial(0, 1.0, 0.95))
    print("ready", flush=True)
    for line in sys.stdin:
        journal.add(trial(len(journal.trials), float(line), 0.94))
        print("done", flush=True)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process, folder
        finally:
            process.kill()


def do_trial(process: subprocess.Popen[str], latency_ms: float) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{latency_ms}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run_cli(["watch", str(folder), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def read_until(descriptor: int, wanted: str, seconds: float = 60) -> str:
    """What comes from a terminal or a pipe, until it holds the text."""
    text, end = "", time.monotonic() + seconds
    while wanted not in text and time.monotonic() < end:
        if select.select([descriptor], [], [], 1)[0]:
            text += os.read(descriptor, 65536).decode(errors="replace")
    assert wanted in text
    return text


def test_a_run_is_seen_while_it_goes_on_and_after_it_was_killed(
    held: tuple[subprocess.Popen[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    process, folder = held
    do_trial(process, 0.7)
    seen = picture(folder, capsys)
    assert (seen["state"], seen["pid"], seen["max_trials"], seen["trials_measured"]) == ("running", process.pid, 7, 2)
    assert [trial["number"] for trial in seen["trials"]] == [0, 1]
    assert run_cli(["watch", str(folder), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"state: running (process {process.pid}) for ")
    assert "trials: 2 of at most 7 measured" in lines
    assert "  latency.p50 60% of dense: 0.700 ms (at most 0.600 ms): violated" in lines
    assert lines[-1] == "trial 1 (measure): accuracy 94.00 %, p50 0.700 ms"
    process.kill()
    process.wait()
    seen = picture(folder, capsys)
    assert (seen["state"], seen["pid"], seen["status"]) == ("stopped", None, None)
    assert run_cli(["watch", str(folder)]) == 0  # does not wait
    assert f"--resume --run-dir {folder}" in capsys.readouterr().out


def test_lines_come_as_trials_do_and_ctrl_c_leaves_the_run_alone(held: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = held
    with subprocess.Popen([*WATCH, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        read_until(watcher.stdout.fileno(), "trial 0 (dense): ")
        do_trial(process, 0.5)
        text = read_until(watcher.stdout.fileno(), "trial 1 (measure): ")
        assert "\x1b" not in text
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 130
        assert watcher.stderr.read().decode() == "no longer watching; the run goes on\n"
    do_trial(process, 0.4)
    assert process.poll() is None


def test_in_a_terminal_it_is_drawn_anew_and_a_key_ends_it(held: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = held
    terminal, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    try:
        with subprocess.Popen(
            [*WATCH, str(folder)], stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(other, termios.TIOCSCTTY, 0),  # noqa: PLW1509  Ctrl-C comes from a terminal
        ) as watcher:  # fmt: skip
            try:
                read_until(terminal, "1 of at most 7 measured")
                do_trial(process, 0.5)
                text = read_until(terminal, "2 of at most 7 measured")
                text += "" if "0.500 ms" in text else read_until(terminal, "0.500 ms")
                text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
                assert f"running (process {process.pid})" in text
                assert "met      latency.p50 60% of dense: 0.500 ms" in text
                os.write(terminal, b"\x03")
                assert watcher.wait(30) == 130
            finally:
                watcher.kill()
    finally:
        os.close(terminal)
        os.close(other)
    assert process.poll() is None


def test_a_real_run_is_followed_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coarse = PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16").replace(
        "epochs: 2", "epochs: 1"
    )
    project = write_project(tmp_path / "project", coarse)
    folder = project.parent / "runs" / "watched"
    environment = {**os.environ, "EDGEPRUNE_LOCK": str(tmp_path / "lock")}
    command = [sys.executable, "-m", "edgeprune", "run", str(project), "--run-dir", str(folder), "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as run:
        while not (folder / "run.json").exists():
            assert run.poll() is None
            time.sleep(0.1)
        seen = picture(folder, capsys)
        assert (seen["state"], seen["pid"]) == ("running", run.pid)
        watched = subprocess.run([*WATCH, str(project)], capture_output=True, text=True, check=True, timeout=280)
        output, _ = run.communicate(timeout=60)
    result = json.loads(output)
    lines = watched.stdout.splitlines()
    assert [int(text.split()[1]) for text in lines if re.match(r"trial \d+ \(", text)] == list(range(result["trials"]))
    assert {"measuring the dense model", "fine-tuning trial"} & {re.sub(r" \d+$", "", line) for line in lines}
    assert any(line.startswith("state: finished: accepted after ") for line in lines)
    assert f"best: trial {result['best']['number']}, within the budget" in lines
    after = picture(project, capsys)
    assert (after["state"], after["status"], after["pid"]) == ("finished", "accepted", None)
    assert after["best"]["figures"] == result["best"]["figures"]


def test_a_folder_that_is_no_run_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["watch", str(tmp_path)]) == 2
    assert f"there is no run in {tmp_path}" in capsys.readouterr().err


def test_the_dense_network_in_int8_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal.open(tmp_path, INPUTS) as journal:
        journal.add(trial(0, 1.0, 0.95))
        again = trial(1, 0.65, 0.949, Stage.FINAL)
        journal.add(replace(again, candidate=Candidate(), details={"quantised": {"scheme": "per-tensor"}}))
    assert run_cli(["watch", str(tmp_path), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "best: trial 1, the dense model, int8" in lines
    assert "trial 1 (dense, int8): accuracy 94.90 %, p50 0.650 ms" in lines
