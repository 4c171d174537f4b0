"""prune and export, on a network of two layers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgeprune.cli.main import run_cli
from edgeprune.graph.capture import capture
from edgeprune.graph.storage import load, save


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_prune_halves_a_saved_model(saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, onnx = tmp_path / "small.pt2", tmp_path / "small.onnx"
    command = ["prune", str(saved_model), "-o", str(small), "--ratio", "0.5", "--onnx", str(onnx), "--json"]
    assert run_cli(command) == 0
    report = printed(capsys)
    assert [(g["units"], g["kept"]) for g in report["groups"]] == [(32, 16)]
    # 6 x 32 + 32 + 32 x 4 + 4 before, and the same with 16 after
    assert report["params"] == {"before": 356, "after": 180}
    assert report["verification_error"] < 1e-6
    assert report["parity_error"] < 1e-5
    module = load(small).module
    x = torch.randn(3, 6)
    (actual,) = onnxruntime.InferenceSession(onnx).run(None, {_input(onnx): x.numpy()})
    np.testing.assert_allclose(actual, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_prune_takes_comparison_exceptions_and_multiples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    wide, narrow, kept, last = nn.Linear(6, 32), nn.Linear(32, 16), nn.Linear(16, 8), nn.Linear(8, 4)
    with torch.no_grad():
        wide.weight.mul_(0.001)
    model = nn.Sequential(wide, nn.ReLU(), narrow, nn.ReLU(), kept, nn.ReLU(), last)
    save(capture(model, (torch.randn(2, 6),)), tmp_path / "model.pt2")
    monkeypatch.chdir(tmp_path)
    options = ["--importance", "l1:normalise=none", "--compare", "global", "--ignore", "4", "--min-share", "0.25"]
    command = ["prune", "model.pt2", "-o", "small.pt2", *options, "--round-to", "6", "--round-to", "2=5", "--json"]
    assert run_cli(command) == 0
    report = printed(capsys)
    # 24 of the 48 units shall go. A quarter of the first layer stays, rounded up: 12, so 20 go there and 4 of the
    # second, whose 12 are rounded to 10.
    assert [(g["name"], g["units"], g["kept"]) for g in report["groups"]] == [("0", 32, 12), ("2", 16, 10), ("4", 8, 8)]
    assert (report["compare"], report["ignored"], report["round_to"]) == ("global", ["4"], {"2": 5, "*": 6})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--round-to", "0"], "--round-to '0' is no multiple"),
        (["--round-to", "fc=x"], "--round-to 'fc=x' is no multiple"),
        (["--round-to", "fc=8"], "round_to: nothing is named like 'fc'"),
        (["--ignore", "fc"], "ignored: nothing is named like 'fc'"),
        (["--compare", "all"], "Invalid value for '--compare'"),
        (["--importance", "l1:reduce=add"], "reduce cannot be 'add'"),
    ],
)
def test_a_wrong_selection_is_refused(
    options: list[str], message: str, saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["prune", str(saved_model), "-o", str(tmp_path / "x.pt2"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.pt2").exists()


def test_prune_says_in_words_what_it_did(saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["prune", str(saved_model), "-o", str(tmp_path / "small.pt2"), "--ratio", "0.25"]) == 0
    out = capsys.readouterr().out
    assert "32 -> 24" in out
    assert "params: 356 -> 268 (75.3%)" in out
    assert f"wrote {tmp_path / 'small.pt2'}" in out


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
        self.centres = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(self.layers(x), self.centres)


def test_operators_that_the_count_leaves_out_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, small = tmp_path / "dense.pt2", tmp_path / "small.pt2"
    save(capture(Distances(), torch.randn(2, 6)), source)
    assert run_cli(["prune", str(source), "-o", str(small)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "macs: 320 -> 160 (50.0%)" in lines
    assert "macs leave out what these operators multiply: cdist" in lines
    assert run_cli(["prune", str(source), "-o", str(small), "--json"]) == 0
    assert printed(capsys)["macs_leave_out"] == ["cdist"]


def test_prune_does_not_reconstruct_without_data(saved_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = saved_model.with_name("small.pt2")
    assert run_cli(["prune", str(saved_model), "-o", str(small), "--reconstruct"]) == 2
    assert "no train_batches() and loss()" in capsys.readouterr().err
    assert not small.exists()


@pytest.mark.filterwarnings("ignore")
def test_prune_tells_the_fidelity_of_an_onnx_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    names = {"input_names": ["image"], "output_names": ["scores"], "dynamo": False}
    torch.onnx.export(net, (torch.zeros(1, 1, 6, 6),), "model.onnx", **names)
    np.savez("images.npz", image=np.random.default_rng(0).standard_normal((300, 1, 6, 6), np.float32))
    command = ["prune", "model.onnx", "--calibration", "images.npz", "--reconstruct", "-o", "small.pt2"]
    assert run_cli([*command, "--onnx", "small.onnx", "--json"]) == 0
    fidelity = printed(capsys)["fidelity"]
    (before,), (after,) = fidelity["pruned"], fidelity["reconstructed"]
    assert (before["name"], fidelity["examples"], fidelity["held_back"]) == ("scores", 76, True)
    assert after["relative_error"] < before["relative_error"]
    session = onnxruntime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]

    assert run_cli(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "fidelity to the dense outputs, on 76 examples that nothing was fitted to:" in lines
    assert f"output scores: agreement {before['agreement']:.1%} -> {after['agreement']:.1%}" in lines
    error = f"{before['relative_error']:.3g} -> {after['relative_error']:.3g}"
    assert f"output scores: relative error {error}" in lines


def test_calibration_data_that_are_absent_are_said_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli(["prune", "none.pt2", "-o", "x.pt2", "--calibration", "images.npz"]) == 2
    assert "error: there is no file images.npz" in capsys.readouterr().err.splitlines()


def test_prune_shows_groups_without_writing(saved_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["prune", str(saved_model), "--groups", "--json"]) == 0
    report = printed(capsys)
    assert [g["units"] for g in report["groups"]] == [32]
    assert [g["units"] for g in report["frozen"]] == [4]  # the output is what the user asked for
    assert all(g["reason"] for g in report["frozen"])
    assert run_cli(["prune", str(saved_model), "--groups"]) == 0
    assert "32 units" in capsys.readouterr().out


def test_prune_without_an_output_is_refused(saved_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["prune", str(saved_model)]) == 2
    assert "hint: name a file: --output small.pt2" in capsys.readouterr().err


@pytest.mark.parametrize("ratio", ["1", "1.5", "-0.1", "half"])
def test_a_ratio_outside_0_and_1_is_refused(ratio: str, saved_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["prune", str(saved_model), "-o", "x.pt2", "--ratio", ratio]) == 2
    assert "Invalid value for '--ratio'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [("none.pt2", "there is no file none.pt2"), ("something", "'something' is no model, task or project")],
)
def test_a_source_that_is_none_is_refused(source: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["prune", source, "-o", "x.pt2"]) == 2
    assert f"error: {message}" in capsys.readouterr().err.splitlines()


TASK = """
import torch
class Tiny:
    def model(self):
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    def example_inputs(self): return torch.ones(2, 6)
    def evaluate(self, model): return 0.5
"""


@pytest.mark.parametrize("source", ["task.py:Tiny", ".", "edgeprune.yaml"])
def test_the_source_may_be_a_task_or_a_project(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "edgeprune.yaml").write_text("task: task.py:Tiny\nbudget: {size: 50% of dense}\n")
    monkeypatch.chdir(tmp_path)
    assert run_cli(["prune", source, "--groups", "--json"]) == 0
    assert [g["units"] for g in printed(capsys)["groups"]] == [8]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["prune", "-o", "o.txt"], "o.txt: the pruned model is written as a .pt2 file", "name it o.pt2"),
        (["prune", "-o", "none/o.pt2"], "there is no folder", "mkdir -p "),
        (["prune", "-o", "o.pt2", "--onnx", "o.xyz"], "no exporter writes .xyz", "endings: "),
        (["prune", "-o", "o.pt2", "--onnx", "none/o.onnx"], "there is no folder", "mkdir -p "),
        (["prune", "-o", "o.pt2", "--importance", "l7"], "unknown importance 'l7'", "valid here: "),
        (["export", "o.xyz"], "o.xyz: no exporter writes .xyz", "endings: "),
        (["export", "o.tflite", "--format", "onnx"], "a file of format 'onnx' ends in .onnx", "name it o.onnx"),
        (["export", "none/o.onnx"], "there is no folder", "mkdir -p "),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_anything_is_loaded(
    *,
    arguments: list[str],
    message: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # The source is none either: that would be said second.
    assert run_cli([arguments[0], "none.pt2", *arguments[1:]]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert second.startswith("hint: ")
    assert hint in second
    assert list(tmp_path.iterdir()) == []


def test_export_writes_the_file_and_its_manifest(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dense.onnx"
    assert run_cli(["export", str(saved_model), str(path), "--json"]) == 0
    report = printed(capsys)
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["size_bytes"] == path.stat().st_size
    manifest = json.loads(Path(report["manifest"]).read_text())
    assert manifest["sha256"] == report["sha256"]


def test_export_to_an_unknown_format_names_the_known(saved_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["export", str(saved_model), "x.onnx", "--format", "onyx"]) == 2
    assert "did you mean 'onnx'?" in capsys.readouterr().err


def _input(path: Path) -> str:
    name: str = onnxruntime.InferenceSession(path).get_inputs()[0].name
    return name


@pytest.mark.parametrize(
    "command",
    [["prune", "SOURCE", "-o", "LINK"], ["sparsify", "SOURCE", "-o", "SOURCE", "--pattern", "2:4"]],
    ids=["prune, by another name", "sparsify"],
)
def test_the_source_is_not_overwritten(
    saved_model: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source, link = tmp_path / "dense.pt2", tmp_path / "link.pt2"
    source.write_bytes(saved_model.read_bytes())
    link.symlink_to(source)
    places = {"SOURCE": str(source), "LINK": str(link)}
    assert run_cli([places.get(word, word) for word in command]) == 2
    assert "is the source itself, which would be gone" in capsys.readouterr().err
    assert source.read_bytes() == saved_model.read_bytes()
