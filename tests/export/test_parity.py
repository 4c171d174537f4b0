from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import ParityError, UsageError
from edgeprune.export.onnx import OnnxExporter
from edgeprune.export.parity import check, relative_error
from edgeprune.records.artifact import Artifact
from edgeprune.testing.importances import SmallNetwork

EXAMPLE = (torch.linspace(-1, 1, 50).reshape(1, 2, 5, 5),)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), self.b(x)


def exported(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path, *, dynamic: bool = True) -> Artifact:
    return OnnxExporter().export(module, inputs, folder / "net.onnx", batch_dynamic=dynamic)


@pytest.mark.parametrize(
    ("actual", "reference", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 4.5], [1.0, 5.0], 0.1),
        ([1.5, -10.0], [1.0, -10.0], 0.05),
        ([0.0], [0.0], 0.0),
        ([1e-9], [0.0], math.inf),
        ([], [], 0.0),
        ([math.nan, 1.0], [math.nan, 2.0], 0.5),
        ([math.inf], [math.inf], 0.0),
        ([-math.inf], [math.inf], math.inf),
        ([math.nan], [1.0], math.inf),
        ([1.0], [math.nan], math.inf),
        ([1.0, 2.0], [1.0], math.inf),
        ([[1.0]], [1.0], math.inf),
    ],
)
def test_relative_error(actual: list[float], reference: list[float], error: float) -> None:
    assert relative_error(np.array(actual), np.array(reference)) == pytest.approx(error)


def test_equal_models_pass_with_their_error(tmp_path: Path) -> None:
    module = SmallNetwork().train()
    artifact = exported(module, EXAMPLE, tmp_path)
    error = check(artifact, module, EXAMPLE)
    assert 0 <= error < 1e-5
    assert module.training
    assert check(artifact, module, EXAMPLE) == error


def test_the_output_that_differs_is_named(tmp_path: Path) -> None:
    module = Pair().eval()
    artifact = exported(module, (torch.ones(2, 3),), tmp_path)
    with torch.no_grad():
        module.b.weight *= 1.1
        module.b.bias *= 1.1
    names = [spec.name for spec in artifact.outputs]
    with pytest.raises(ParityError, match=rf"output '{names[1]}' differs from the model by 0\.0909 relative") as caught:
        check(artifact, module, (torch.ones(2, 3),))
    assert caught.value.exit_code == 5
    assert check(artifact, module, (torch.ones(2, 3),), tolerance=0.1) == pytest.approx(0.1 / 1.1, rel=1e-3)


def test_difference_that_only_other_batches_show(tmp_path: Path) -> None:
    class Batchwise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0)

    class Rowwise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 0

    artifact = exported(Rowwise(), (torch.ones(1, 3),), tmp_path)
    with pytest.raises(ParityError, match="random inputs, batch 3"):
        check(artifact, Batchwise(), (torch.ones(1, 3),))


def test_difference_that_the_example_does_not_show(tmp_path: Path) -> None:
    artifact = exported(nn.ReLU(), (torch.ones(1, 3),), tmp_path)
    with pytest.raises(ParityError, match="random inputs"):
        check(artifact, nn.Identity(), (torch.ones(1, 3),))


def test_fixed_batch_is_checked_at_that_batch(tmp_path: Path) -> None:
    module = SmallNetwork().eval()
    inputs = (torch.randn(4, 2, 5, 5),)
    assert check(exported(module, inputs, tmp_path, dynamic=False), module, inputs) < 1e-5


def test_integer_inputs_stay_in_the_example_s_range(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    inputs = (torch.tensor([[0, 6, 3]]),)  # 7 would be out of range
    assert check(exported(module, inputs, tmp_path), module, inputs) < 1e-5


def test_file_that_the_runtime_cannot_load(tmp_path: Path) -> None:
    artifact = exported(SmallNetwork(), EXAMPLE, tmp_path)
    artifact.path.write_bytes(b"broken")
    with pytest.raises(ParityError, match=r"ONNX Runtime cannot load net\.onnx"):
        check(artifact, SmallNetwork(), EXAMPLE)


def test_file_that_the_runtime_cannot_run(tmp_path: Path) -> None:
    artifact = exported(SmallNetwork(), EXAMPLE, tmp_path)
    wrong = replace(artifact, inputs=(replace(artifact.inputs[0], name="other"),))
    with pytest.raises(ParityError, match=r"ONNX Runtime cannot run net\.onnx \(example inputs, batch 1\)"):
        check(wrong, SmallNetwork(), EXAMPLE)


def test_missing_output(tmp_path: Path) -> None:
    artifact = exported(Pair(), (torch.ones(2, 3),), tmp_path)
    model = onnx.load(artifact.path)
    del model.graph.output[1]
    onnx.save(model, artifact.path)
    with pytest.raises(ParityError, match="has 1 outputs, the model 2"):
        check(artifact, Pair(), (torch.ones(2, 3),))


def test_other_number_of_inputs(tmp_path: Path) -> None:
    artifact = exported(SmallNetwork(), EXAMPLE, tmp_path)
    with pytest.raises(ParityError, match="has 1 inputs, the model 2"):
        check(artifact, SmallNetwork(), (*EXAMPLE, *EXAMPLE))


def test_format_without_a_runtime_here(tmp_path: Path) -> None:
    artifact = replace(exported(SmallNetwork(), EXAMPLE, tmp_path), format="other")
    with pytest.raises(UsageError, match="no runtime here runs format 'other'"):
        check(artifact, SmallNetwork(), EXAMPLE)
