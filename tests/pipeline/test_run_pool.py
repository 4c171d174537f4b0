"""A run on a pool of two real devices, of which one falls out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from edgeprune.errors import ConfigError, UsageError
from edgeprune.measure.session import Session
from edgeprune.pipeline.run import run
from edgeprune.pipeline.run_checks import check_settings
from edgeprune.pipeline.task import load_task
from edgeprune.records.project import load_project
from edgeprune.testing.sshd import Sshd, sshd_missing
from tests.pipeline.small_project import PROJECT, write_project

COARSE = PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16")


def pool_of(folder: Path, *targets: str, more: str = "") -> Path:
    text = json.dumps(list(targets))
    return write_project(folder, COARSE.replace("target: local", f"targets: {text}{more}"))


@pytest.mark.skipif(bool(sshd_missing()), reason=sshd_missing())
def test_a_run_goes_on_without_a_device_that_went_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr("edgeprune.pipeline.devices.Session", partial(Session, reconnect_s=0.0))
    with Sshd({"EDGEPRUNE_LOCK": str(tmp_path / "other-lock")}) as server:
        project = load_project(pool_of(tmp_path / "project", "local", server.url))
        journal = tmp_path / "run" / "journal.jsonl"

        def cut() -> None:
            while not (journal.exists() and '"number": 0' in journal.read_text().replace('"number":0', '"number": 0')):
                if done.wait(0.05):
                    return
            server.stop()

        done = threading.Event()
        thread = threading.Thread(target=cut)
        thread.start()
        try:
            result = run(project, task=load_task(project.task, project.folder), run_dir=tmp_path / "run")
        finally:
            done.set()
            thread.join()
        assert result.status == "accepted"
        facts = result.provenance["measured_on"]
        assert facts["targets"] == ["local", server.url]
        assert list(facts["left_out"]) == [next(iter(result.dense.details["pool"]["devices"].keys() - {"local"}))]
        stored = json.loads((tmp_path / "run" / "result.json").read_text())
        assert "left_out" in json.dumps(stored)
        devices = result.dense.details["pool"]["devices"]
        assert len(devices) == 2
        assert result.dense.figures["latency.p50"].value == max(d["latency.p50"] for d in devices.values())
        assert len(list((tmp_path / "run/trials/0000").glob("measurement-*.json"))) == 2
        assert list(result.best.details["pool"]["devices"]) == ["local"] if result.best else False


def test_targets_beside_a_target_and_unknown_judges_are_refused(tmp_path: Path) -> None:
    file = pool_of(tmp_path / "both", "local", more=", target: 'ssh://pi@a'")
    with pytest.raises(UsageError, match="both `target` and `targets`"):
        check_settings(load_project(file), None, resume=False)
    with pytest.raises(ConfigError, match="'best' is no way to judge"):
        load_project(pool_of(tmp_path / "judge", "local", more=", judge: best"))
    with pytest.raises(ConfigError, match="is no target"):
        load_project(pool_of(tmp_path / "target", "pi@board"))


def test_the_command_takes_several_targets(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", COARSE)
    command = [sys.executable, "-m", "edgeprune", "run", str(file), "--target", "local", "--target", "local"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a device is named twice: local, local" in done.stderr
