"""sparsify, on a network of two layers, and what it says of its worth."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgeprune.cli.main import run_cli
from edgeprune.graph.capture import capture
from edgeprune.graph.storage import load, save


def test_sparsify_writes_zeros_and_measures_their_worth(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, file = tmp_path / "sparse.pt2", tmp_path / "sparse.onnx"
    command = ["sparsify", str(saved_model), "--pattern", "2:4", "-o", str(small), "--onnx", str(file)]
    assert run_cli([*command, "--target", "local", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    # Of the six inputs of the first layer, four form a group and two are left over: 64 of its 192 weights go.
    assert report["zeros"] == {"0.weight": 64 / 192, "2.weight": 0.5}
    assert report["zero_share"] == (64 + 64) / (192 + 128)
    worth = report["worth"]
    dense, sparse = worth["size_bytes"]["xz"]
    assert sparse < dense
    assert worth["size_bytes"]["file"][1] == file.stat().st_size
    assert worth["verdict"] in ("no gain", "faster", "slower")
    low, high = worth["ratio_bounds"]
    assert low <= worth["ratio"] <= high
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
    assert sorted(int((a == 0).sum()) for a in arrays.values() if a.ndim == 2) == [64, 64]
    assert int((load(small).module.get_parameter("2.weight") == 0).sum()) == 64


def test_the_worth_is_not_claimed_without_a_device(
    saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sparse.pt2"
    assert run_cli(["sparsify", str(saved_model), "--ratio", "0.5", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "0.weight: 50.0% zero" in text
    assert "was not measured" in text


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.recurrent = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(self.words(x))[0])


def test_what_is_left_dense_is_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "dense.pt2", tmp_path / "sparse.pt2"
    save(capture(Tagger().eval(), torch.zeros(2, 3, dtype=torch.int64)), source)
    assert run_cli(["sparsify", str(source), "--ratio", "0.5", "-o", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["left_dense"] == ["recurrent.weight_hh_l0", "recurrent.weight_ih_l0", "words.weight"]
    assert report["zero_share"] == 0.5
    assert report["zero_share_of_all"] == 40 / (80 + 64 * 8 + 64 * 16 + 80)
    assert run_cli(["sparsify", str(source), "--ratio", "0.5", "-o", str(out)]) == 0
    assert "all together: 50.0% zero of the weights that take part, 2.4% of all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pattern", "3:2"], "no pattern of sparsity"),
        (["--pattern", "2:4", "--ratio", "0.5"], "says itself"),
        (
            [],
            "the pattern 'unstructured' needs a ratio, the share of zeros from 0 to below 1\nhint: --ratio 0.8 leaves",
        ),
        (["--ratio", "0.5", "--epochs", "1"], "no train_batches"),
        (["--ratio", "0.5", "--criterion", "wanda"], "needs data"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: list[str], message: str, saved_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sparse.pt2"
    assert run_cli(["sparsify", str(saved_model), "-o", str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
