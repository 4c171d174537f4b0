"""export --quantize int8, run --quantize int8 and sparsify --compressed, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgeprune.cli.main import run_cli
from edgeprune.export import sparse_loader
from edgeprune.graph.storage import load
from edgeprune.recovery.reconstruct import held_back


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "examples.npy"
    np.save(path, np.random.default_rng(0).normal(size=(256, 6)).astype(np.float32))
    return path


def test_a_model_without_a_task_is_calibrated_on_a_file(
    saved_model: Path, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "int8.onnx"
    command = ["export", str(saved_model), str(path), "--quantize", "int8", "--calibration", str(examples)]
    assert run_cli([*command, "--scheme", "per-channel", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    int8 = report["int8"]
    assert (int8["scheme"], int8["calibrated_on"]) == ("per-channel", "the calibration data")
    assert (int8["accuracy"], int8["float_accuracy"]) == (None, None)
    assert report["size_bytes"] == path.stat().st_size
    manifest = json.loads(Path(report["manifest"]).read_text())
    assert manifest["provenance"]["quantised"] == "int8 per channel, signed activations"
    x = np.load(examples).reshape(8, 32, 6)  # the batches
    x = np.concatenate([batch for number, batch in enumerate(x) if held_back(number)])  # nothing is fitted to them
    session = onnxruntime.InferenceSession(path)
    (got,) = session.run(None, {session.get_inputs()[0].name: x})
    wanted = load(saved_model).module(torch.from_numpy(x)).detach().numpy()
    noise = 10 * np.log10((wanted**2).sum() / ((got - wanted) ** 2).sum())
    assert len(x) == 64
    assert int8["sqnr_db"] == pytest.approx(noise, abs=0.01)
    assert run_cli(command) == 0
    assert (
        "int8 per-tensor, calibrated on the calibration data: signal to quantisation noise" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--quantize int8", ("int8 needs examples of the model's inputs", "--calibration FILE")),
        ("--scheme per-tensor", ("--scheme and --calibration are for int8", "--quantize int8")),
        ("--quantize int8 --scheme per-canal", ("no int8 scheme 'per-canal'", "did you mean 'per-channel'?")),
    ],
)
def test_what_int8_lacks_is_told(
    options: str, told: tuple[str, str], saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["export", str(saved_model), str(tmp_path / "int8.onnx"), *options.split()]) == 2
    text = capsys.readouterr().err
    assert all(part in text for part in told)
    assert not list(tmp_path.iterdir())


def test_run_takes_int8_from_the_command_line(accepted_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = accepted_run.parent.parent
    assert run_cli(["run", str(project), "--quantize", "int8", "--run-dir", str(accepted_run), "--resume"]) == 2
    assert "export" in capsys.readouterr().err  # the run was begun in float
    assert run_cli(["run", str(project), "--quantize", "int4"]) == 2
    assert "'none', 'int8'" in capsys.readouterr().err


def test_a_sparse_model_is_stored_without_its_zeros(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sparse.onnx"
    command = ["sparsify", str(saved_model), "--ratio", "0.8", "-o", str(tmp_path / "sparse.pt2")]
    assert run_cli([*command, "--compressed"]) == 2
    assert "--onnx sparse.onnx --compressed" in capsys.readouterr().err
    assert run_cli([*command, "--onnx", str(file), "--compressed", "--json"]) == 0
    packed = json.loads(capsys.readouterr().out)["compressed"]
    path = Path(packed["path"])
    assert path == tmp_path / "sparse.onnx.sparse"
    assert packed["size_bytes"] == path.stat().st_size < packed["model_bytes"]["xz"] < packed["model_bytes"]["file"]
    assert sparse_loader.load(path.read_bytes()) == file.read_bytes()
