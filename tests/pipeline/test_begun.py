"""The first minutes of a run, before there is a journal: it is there for those who look on, and for no other run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.cli.project import latest_run
from edgeprune.errors import UsageError
from edgeprune.pipeline.begun import RUN, begun, resuming, unfinished
from edgeprune.pipeline.integrity import verify_folder
from edgeprune.pipeline.locking import read_lock, relock
from edgeprune.pipeline.subject import load_result
from edgeprune.pipeline.watch import snapshot
from edgeprune.search.journal import Journal
from tests.pipeline.test_watch import INPUTS, trial

KILLED = """
import os, signal, sys
from pathlib import Path
from edgeprune.pipeline.begun import begun
with begun(Path(sys.argv[1]), max_trials=7, project=Path(sys.argv[2])) as note:
    note(now="loading the model")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run that was killed while it loaded the model."""
    folder = tmp_path / "my project/runs/killed"
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "my project/edgeprune.yaml")]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    return folder


def test_a_run_is_there_before_its_journal_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with begun(tmp_path / "runs/a", max_trials=7) as note:
        note(now="loading the model")
        seen = snapshot(tmp_path / "runs/a")
        assert (seen.state, seen.pid, seen.now, seen.max_trials) == ("running", os.getpid(), "loading the model", 7)
        assert 0 <= (seen.elapsed_s or 0) < 60
        assert latest_run(tmp_path / "runs") == tmp_path / "runs/a"
        assert run_cli(["watch", str(tmp_path / "runs/a"), "--once"]) == 0
        assert "now: loading the model" in capsys.readouterr().out.splitlines()
        with Journal.open(tmp_path / "runs/a", INPUTS):
            note(trials=0)
            assert snapshot(tmp_path / "runs/a").now == "capturing the model"
    assert snapshot(tmp_path / "runs/a").state == "stopped"


def test_a_start_that_came_to_nothing_leaves_what_was_there(tmp_path: Path) -> None:
    def start() -> None:
        with begun(tmp_path / "run", max_trials=7):
            raise UsageError("the device is not there")

    with pytest.raises(UsageError, match="the device is not there"):
        start()
    assert not (tmp_path / "run").exists()
    with begun(tmp_path / "run", max_trials=40) as note, Journal.open(tmp_path / "run", INPUTS):
        note(trials=0)
    before = (tmp_path / "run" / RUN).stat().st_mtime_ns, (tmp_path / "run" / RUN).read_bytes()
    with pytest.raises(UsageError, match="the device is not there"):
        start()
    assert before == ((tmp_path / "run" / RUN).stat().st_mtime_ns, (tmp_path / "run" / RUN).read_bytes())


def test_no_second_run_begins_in_the_folder(tmp_path: Path) -> None:
    with begun(tmp_path, max_trials=7):
        before = (tmp_path / RUN).read_bytes()
        with pytest.raises(UsageError, match="another run is working in this folder"), begun(tmp_path, max_trials=8):
            pass
        assert (tmp_path / RUN).read_bytes() == before
        assert json.loads(before)["max_trials"] == 7


def test_a_run_that_was_killed_while_it_began_is_not_running(killed: Path) -> None:
    seen = snapshot(killed)
    assert (seen.state, seen.pid, seen.now, seen.trials) == ("stopped", None, "", ())
    project = killed.parents[1] / "edgeprune.yaml"
    assert resuming(killed) == f"edgeprune run '{project}' --resume --run-dir '{killed}'"
    error = unfinished(killed)
    assert error is not None
    assert error.hint == f"the run was not finished; go on with: {resuming(killed)}"


def _report(run: Path) -> None:
    from edgeprune.cli.project import report_command

    report_command.main([str(run)], standalone_mode=False)


@pytest.mark.parametrize(
    "ask",
    [load_result, verify_folder, relock, lambda run: read_lock(run / "edgeprune.lock"), _report],
    ids=["check and diff", "verify", "package", "package --locked", "report"],
)
def test_the_result_of_a_run_that_goes_on_is_not_there_yet(tmp_path: Path, ask: Any) -> None:
    project = Path("/here/edgeprune.yaml")
    with begun(tmp_path, max_trials=7, project=project) as note, Journal.open(tmp_path, INPUTS) as journal:
        note(trials=0)
        journal.add(trial(0, 1.0, 0.95))
        with pytest.raises(UsageError, match=rf"is still running \(process {os.getpid()}\)") as running:
            ask(tmp_path)
        assert running.value.hint == f"look on: edgeprune watch {tmp_path}"
    with pytest.raises(UsageError, match="there is no result in") as stopped:
        ask(tmp_path)
    assert "edgeprune run /here/edgeprune.yaml --resume" in (stopped.value.hint or "")
