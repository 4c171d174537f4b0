"""A whole run whose artifacts are of another format: exported, checked and measured in that format's own runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.export import manifest
from edgeprune.export.environment import find
from edgeprune.pipeline.run import run
from edgeprune.pipeline.task import load_task
from edgeprune.records.project import load_project
from edgeprune.records.trial import Stage
from edgeprune.search.journal import read_trials
from tests.export.networks import needs
from tests.pipeline.small_project import PROJECT, write_project


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("ncnn")
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "device.lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_run_in_ncnn_is_accepted_by_measurements_in_ncnn(tmp_path: Path) -> None:
    text = PROJECT.replace("target: local", f"target: 'local://?python={find('ncnn').python}'")
    text = text.replace("size: 50% of dense,", "size: 50% of dense, latency: {p50: 1s}, peak_memory: 1GB,")
    text = text.replace("round_to: 4, min_width: 4", "round_to: 16, max_trials: 6").replace("epochs: 2", "epochs: 1")
    project = load_project(write_project(tmp_path / "project", text + "export: {format: ncnn}\n"))
    result = run(project, task=load_task(project.task, project.folder), run_dir=tmp_path / "run")
    assert result.status == "accepted"
    best = result.best
    assert best is not None
    assert best.stage is Stage.FINAL
    for name in ("latency.p50", "peak_memory", "size"):
        assert best.figures[name].kind == "measured"
        assert (best.figures[name].value or 0) > 0
    assert best.figures["size"].value <= 0.5 * result.dense.figures["size"].value  # type: ignore[operator]
    measured = [trial for trial in read_trials(tmp_path / "run") if trial.stage.is_measured]
    assert len(measured) >= 2
    for trial in measured:
        folder = tmp_path / "run" / "trials" / f"{trial.number:04d}"
        artifact = manifest.read(folder / "model.ncnn")
        assert artifact.provenance["parity_error"] <= 1e-4
        told = json.loads((folder / "measurement.json").read_text())
        assert (told["outcome"], told["provenance"]["runtime"]) == ("OK", "ncnn")
