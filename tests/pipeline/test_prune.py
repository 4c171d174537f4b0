from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import TaskError, UsageError
from edgeprune.graph.capture import capture
from edgeprune.graph.storage import load, save
from edgeprune.pipeline.prune import prune
from edgeprune.pipeline.task import check_task
from edgeprune.testing.importances import SmallNetwork


class Evaluated:
    """A task without a training part."""

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return SmallNetwork()

    def example_inputs(self) -> Tensor:
        return torch.linspace(-1, 1, 100).reshape(2, 2, 5, 5)

    def evaluate(self, model: nn.Module) -> float:
        return 0.5


class Trainable(Evaluated):
    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(2):
            yield torch.randn(8, 2, 5, 5), torch.randint(0, 3, (8,))

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])


def saved(folder: Path) -> Path:
    task = Evaluated()
    save(capture(task.model(), task.example_inputs()), folder / "dense.pt2")
    return folder / "dense.pt2"


def test_report_of_a_file(tmp_path: Path) -> None:
    report = prune(load(saved(tmp_path)), tmp_path / "small.pt2", ratio=0.5, export_to=tmp_path / "small.onnx")
    assert report["schema"] == "edgeprune.prune/1"
    assert [(g["name"], g["units"], g["kept"]) for g in report["groups"]] == [("first", 4, 2), ("second", 6, 3)]
    assert report["params"] == {"before": 76 + 8 + 222 + 21, "after": 38 + 4 + 57 + 12}
    assert report["macs"] == {"before": 9 * 72 + 216 + 18, "after": 9 * 36 + 54 + 9}
    assert report["peak_activation_bytes"]["after"] < report["peak_activation_bytes"]["before"]
    assert 0 <= report["verification_error"] < 1e-4
    assert 0 <= report["parity_error"] < 1e-3
    assert report["output"] == str(tmp_path / "small.pt2")
    assert report["artifact"] == str(tmp_path / "small.onnx")
    assert len(report["candidate"]) == 16
    small = load(tmp_path / "small.pt2")
    assert sum(p.numel() for p in small.module.parameters()) == report["params"]["after"]


def test_fidelity_is_told_on_examples_that_nothing_was_fitted_to(tmp_path: Path) -> None:
    dense = load(saved(tmp_path))
    images = np.random.default_rng(0).standard_normal((400, 2, 5, 5), np.float32)
    np.save(tmp_path / "images.npy", images)
    options = {"ratio": 0.5, "calibration": tmp_path / "images.npy"}
    plain = prune(dense, tmp_path / "plain.pt2", **options)
    fitted = prune(dense, tmp_path / "fitted.pt2", reconstruct=True, **options)

    assert plain["fidelity"]["examples"] == 400
    assert (plain["fidelity"]["held_back"], plain["fidelity"]["reconstructed"]) == (False, None)
    with torch.no_grad():
        x = torch.from_numpy(images)
        scores, small = dense.module(x), load(tmp_path / "plain.pt2").module(x)
        held_back = torch.cat(x.split(32)[1::4])
        better, expected = load(tmp_path / "fitted.pt2").module(held_back), dense.module(held_back)
    (found,) = plain["fidelity"]["pruned"]
    assert found["agreement"] == pytest.approx(float((scores.argmax(1) == small.argmax(1)).float().mean()))
    assert found["relative_error"] == pytest.approx(float((small - scores).norm() / scores.norm()), rel=1e-5)
    assert (fitted["fidelity"]["examples"], fitted["fidelity"]["held_back"]) == (96, True)
    (after,) = fitted["fidelity"]["reconstructed"]
    assert after["relative_error"] == pytest.approx(float((better - expected).norm() / expected.norm()), rel=1e-4)
    assert after["relative_error"] < 0.7 * fitted["fidelity"]["pruned"][0]["relative_error"]
    assert fitted["reconstruction"]["batches"] == 13


def test_keeps_the_most_important_units(tmp_path: Path) -> None:
    task = Evaluated()
    model = task.model()
    with torch.no_grad():
        for unit, size in enumerate((0.1, 5.0, 0.2, 4.0)):
            model.get_parameter("first.weight")[unit] = size
    dense = capture(model, task.example_inputs())
    prune(dense, tmp_path / "small.pt2", ratio=0.5, importance="l1")
    weight = load(tmp_path / "small.pt2").module.get_parameter("first.weight")
    assert weight[:, 0, 0, 0].tolist() == [5.0, 4.0]


def test_result_loads_where_the_class_is_unknown(tmp_path: Path) -> None:
    prune(load(saved(tmp_path)), tmp_path / "small.pt2", ratio=0.5)
    program = (
        "import sys, torch; from edgeprune.graph.storage import load\n"
        "captured = load(sys.argv[1])\n"
        "print(tuple(captured.module(torch.zeros(5, 2, 5, 5)).shape), 'edgeprune.testing.importances' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "small.pt2")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "(5, 3) False\n"


@pytest.mark.parametrize("importance", ["l1", "l2", "bn_scale", "taylor", "random"])
def test_task_with_every_importance(tmp_path: Path, importance: str) -> None:
    task = check_task(Trainable())
    dense = capture(task.model(), task.example_inputs())
    report = prune(dense, tmp_path / "a.pt2", ratio=0.5, importance=importance, seed=4, task=task)
    again = prune(dense, tmp_path / "b.pt2", ratio=0.5, importance=importance, seed=4, task=task)
    assert report["candidate"] == again["candidate"]
    assert [g["kept"] for g in report["groups"]] == [2, 3]
    assert report["artifact"] is None


def test_reconstruction_on_the_tasks_batches(tmp_path: Path) -> None:
    task = check_task(Trainable())
    dense = capture(task.model(), task.example_inputs())
    plain = prune(dense, tmp_path / "plain.pt2", ratio=0.5, task=task)
    report = prune(dense, tmp_path / "small.pt2", ratio=0.5, reconstruct=True, seed=4, task=task)
    again = prune(dense, tmp_path / "again.pt2", ratio=0.5, reconstruct=True, seed=4, task=task)
    assert plain["reconstruction"] is None
    assert report["reconstruction"]["batches"] == 2
    layers = {layer["name"]: layer for layer in report["reconstruction"]["layers"]}
    assert len(layers) == 2
    assert any(not layer["note"] for layer in layers.values())
    for name, layer in layers.items():
        assert layer["note"] or layer["error_after"] < layer["error_before"], name
    first, second = (load(tmp_path / f"{name}.pt2").module.state_dict() for name in ("small", "again"))
    unchanged = load(tmp_path / "plain.pt2").module.state_dict()
    assert [e["error_after"] for e in again["reconstruction"]["layers"]] == [e["error_after"] for e in layers.values()]
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        if name in layers:
            assert torch.equal(value, unchanged[name]) == bool(layers[name]["note"]), name


def test_reconstruction_without_a_training_part(tmp_path: Path) -> None:
    task = check_task(Evaluated())
    dense = capture(task.model(), task.example_inputs())
    with pytest.raises(TaskError, match="reconstruction needs data"):
        prune(dense, tmp_path / "small.pt2", ratio=0.5, reconstruct=True, task=task)
    assert list(tmp_path.iterdir()) == []


def test_gradients_without_a_training_part(tmp_path: Path) -> None:
    task = check_task(Evaluated())
    dense = capture(task.model(), task.example_inputs())
    with pytest.raises(TaskError, match="'taylor' needs data"):
        prune(dense, tmp_path / "small.pt2", ratio=0.5, importance="taylor", task=task)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "small.onnx"}, r"small\.onnx: the pruned model is written as a \.pt2 file"),
        ({"export_to": "small.xyz"}, r"small\.xyz: no exporter writes \.xyz"),
        ({"export_to": "small"}, "no exporter writes files without a suffix"),
        ({"round_to": 0}, "multiples of 0"),
        ({"ratio": 1.0}, r"ratio 1\.0 is not between 0 and 1"),
        ({"importance": "l7"}, "unknown importance 'l7'"),
    ],
)
def test_refusals_leave_nothing(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    task = Evaluated()
    dense = capture(task.model(), task.example_inputs())
    options: dict[str, Any] = {"output": "small.pt2", "ratio": 0.5} | changes
    for key in ("output", "export_to"):
        if key in options:
            options[key] = tmp_path / options[key]
    with pytest.raises(UsageError, match=message):
        prune(dense, options.pop("output"), **options)
    assert list(tmp_path.iterdir()) == []
