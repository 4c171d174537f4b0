from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.export import manifest
from edgeprune.export.environment import ENVIRONMENTS
from edgeprune.records.artifact import TensorSpec
from tests.export.tflite_models import needed
from tests.pipeline.small_project import PROJECT, write_project

COARSE = PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16, max_trials: 4")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No environment anywhere."""
    for kind in ENVIRONMENTS.values():
        monkeypatch.delenv(kind.variable, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def test_a_file_is_exported_and_measured_in_its_own_runtime(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed("tflite")
    out = tmp_path / "net.tflite"
    assert run_cli(["export", str(saved_model), str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "tflite"
    assert told["provenance"]["parity_error"] < 1e-5
    assert manifest.read(out).sha256 == told["sha256"]
    assert run_cli(["measure", str(out), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["outcome"] == "OK"
    assert measured["provenance"]["runtime"] == "ai-edge-litert"
    assert measured["artifact_sha256"] == told["sha256"]


@pytest.mark.timeout(900)  # a whole run, on a machine that may do much else
def test_a_run_searches_and_proves_in_litert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed("tflite")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project = write_project(tmp_path / "project", COARSE + "export: {format: tflite}\n")
    folder = tmp_path / "run"
    assert run_cli(["run", str(project), "--run-dir", str(folder), "--json"]) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "accepted"
    assert result["provenance"]["measured_on"]["runtime"] == "ai-edge-litert"
    best = manifest.read(folder / "best" / "model.tflite")
    assert best.format == "tflite"
    assert best.size_bytes <= 0.5 * manifest.read(folder / "trials/0000/model.tflite").size_bytes
    assert result["provenance"]["device_difference"] <= 1e-3


@pytest.mark.usefixtures("without")
def test_measuring_without_a_runtime_names_what_brings_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(b"a file that nothing will open")
    one = (TensorSpec("x", "float32", (1, 4)),)
    manifest.write(manifest.artifact(path, path.read_bytes(), format="tflite", inputs=one, outputs=one))
    assert run_cli(["measure", str(path), "--json"]) == 3
    measured = json.loads(capsys.readouterr().out)
    assert measured["outcome"] == "NO_RUNTIME"
    assert "(edgeprune doctor --install tflite; or name an interpreter: 'local://?python=" in measured["message"]


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("command", ["run", "export", "prune"])
def test_without_the_environment_it_is_said_at_once_with_its_fix(
    command: str, saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write_project(tmp_path / "project", PROJECT + "export: {format: tflite}\n")
    arguments = {
        "run": [str(project), "--run-dir", str(tmp_path / "run")],
        "export": [str(saved_model), str(tmp_path / "net.tflite")],
        "prune": [str(saved_model), "-o", str(tmp_path / "small.pt2"), "--onnx", str(tmp_path / "net.tflite")],
    }
    assert run_cli([command, *arguments[command]]) == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: export to .tflite, int8, and LiteRT to check and measure it with: needs packages")
    assert "edgeprune doctor --install tflite" in hint
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob("*.tflite"))


@pytest.mark.usefixtures("without")
def test_parameters_of_a_format_are_read_from_the_project_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write_project(tmp_path / "project", PROJECT + "export: {format: {name: tflite, layout: nhcw}}\n")
    assert run_cli(["run", str(project)]) == 2
    assert "tflite: 'nhcw' is no layout" in capsys.readouterr().err
    project = write_project(tmp_path / "project", PROJECT + "export: {format: {name: onnx, layout: nhwc}}\n")
    assert run_cli(["run", str(project)]) == 2
    assert "'onnx' has no parameter 'layout'" in capsys.readouterr().err


def test_doctor_installs_only_what_it_knows_and_fails_for_a_device_out_of_reach(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli(["doctor", "--install", "tflit"]) == 2
    assert "did you mean 'tflite'?" in capsys.readouterr().err
    assert run_cli(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "edgeprune.doctor/1"
    assert run_cli(["doctor", "--target", "ssh://nobody@127.0.0.1:9"]) == 3
    out = capsys.readouterr().out
    assert "\nssh://nobody@127.0.0.1:9\n  failed   reachable" in out
