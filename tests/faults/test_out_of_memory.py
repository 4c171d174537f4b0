"""A whole run on a device whose kernel kills what needs too much memory: wide candidates are ruled out, it goes on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.records.project import load_project
from edgeprune.search.journal import read_trials
from tests.pipeline.small_project import TASK, write_project

CONTROLLER = Path("/sys/fs/cgroup/memory")
HIDDEN = 16384  # its weights take 51 MB; loaded they take twice that
LIMIT_MB = 72  # for the agent and its workers together
PROJECT = """
task: task.py:Small
device: {profile: quick.yaml, target: "local://?python=%s"}
budget: {peak_memory: 45MB, accuracy: {max_drop: 10pp}}
search: {strategy: uniform, round_to: 4096, min_width: 16}
recovery: {epochs: 1}
"""
PROFILE = """
name: small-memory
extends: host
measurement: {warmup_time: 1s, min_time: 50ms, max_time: 500ms, memory_workers: 1}
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory control group (cgroup v1) with the limit; nothing may be left in it."""
    if not os.access(CONTROLLER / "cgroup.procs", os.W_OK):
        reason = "no writable cgroup v1 memory controller"
        pytest.skip(reason)
    folder = CONTROLLER / f"edgeprune-test-{os.getpid()}-run"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(LIMIT_MB << 20))
        yield folder
    finally:
        end = time.monotonic() + 30
        while (folder / "cgroup.procs").read_text() and time.monotonic() < end:
            time.sleep(0.05)
        folder.rmdir()  # fails where a process is left


def test_candidates_that_do_not_fit_are_infeasible_and_the_run_goes_on(
    group: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho $$ > {group}/cgroup.procs || exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = write_project(tmp_path / "project", PROJECT % python)
    wide = f"nn.Linear(48 * 16, {HIDDEN}), nn.ReLU(), nn.Linear({HIDDEN}, 10),"
    (path.parent / "task.py").write_text(
        TASK.replace("nn.Linear(48 * 16, 10),", wide).replace("for _ in range(3)", "for _ in range(1)")
    )
    (path.parent / "quick.yaml").write_text(PROFILE)
    project = load_project(path)
    result = run(project, task=load_task(project.task, project.folder), run_dir=tmp_path / "run")
    trials = read_trials(tmp_path / "run")
    outcomes = {trial.figures["size"].value: trial.outcome for trial in trials}
    sizes = sorted(size for size in outcomes if size is not None)
    assert trials[0].outcome == "OOM"  # the dense model
    assert [outcomes[size] for size in sizes] == ["OK", *["OOM"] * (len(sizes) - 1)]
    assert len(sizes) >= 3  # at least one candidate was killed as well
    for trial in trials:
        peak = trial.figures["peak_memory"]
        if trial.outcome == "OOM":
            assert trial.message.startswith("the kernel killed the worker for want of memory")
            assert (peak.value, (peak.missing or "")[:4]) == (None, "OOM:")
        else:
            assert peak.value is not None
            assert 30e6 < peak.value <= 45e6
    assert result.status == "accepted"
    assert trials[-1].figures["size"].value == sizes[0]
    assert (group / "cgroup.procs").read_text() == ""
    assert list((tmp_path / "temporary").glob("edgeprune*")) == []
    assert not (tmp_path / "lock").exists()
