"""int8 files: close to the float model, of the scheme asked for, the same bytes again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.export.onnx import OnnxExporter
from edgeprune.export.quantize import SCHEMES, OnnxQuantizer, quantize
from edgeprune.export.runtime_module import RuntimeModule
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.pipeline.export import export
from edgeprune.records.artifact import Artifact
from edgeprune.testing.quantizers import QuantizerContract


class TestOnnxQuantizer(QuantizerContract):
    factory = staticmethod(OnnxQuantizer)
    exporter = staticmethod(OnnxExporter)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return {"features": features, "scores": self.head(features)}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> tuple[Captured, Artifact, list[tuple[torch.Tensor, ...]]]:
    torch.manual_seed(0)
    captured = capture(Net().eval(), (torch.randn(2, 3, 12, 12),))
    artifact = export(captured, tmp_path_factory.mktemp("quantize") / "dense.onnx")
    return captured, artifact, [(torch.randn(8, 3, 12, 12),) for _ in range(4)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_int8_is_close_to_float(scheme, dense, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    captured, artifact, batches = dense
    int8 = quantize(artifact, tmp_path / "int8.onnx", batches, scheme)
    assert int8.provenance["quantised"] == scheme.name
    assert "parity_error" not in int8.provenance
    model = onnx.load(int8.path)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kernel = next(array for array in weights.values() if array.shape == (16, 3, 3, 3))
    assert kernel.dtype == np.int8
    scales = [weights[n.input[1]] for n in model.graph.node if n.op_type == "DequantizeLinear"]
    assert any(scale.shape == (16,) for scale in scales) is scheme.per_channel
    zero = next(weights[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear")
    assert zero.dtype == (np.int8 if scheme.signed else np.uint8)
    again = quantize(artifact, tmp_path / "again.onnx", batches, scheme)
    assert again.sha256 == int8.sha256

    module = RuntimeModule(int8, captured.module, captured.example_inputs)
    x = torch.randn(7, 3, 12, 12)
    with torch.no_grad():
        wanted, got = captured.module(x), module(x)
    assert sorted(got) == ["features", "scores"]
    for name in wanted:
        error = (got[name] - wanted[name]).norm() / wanted[name].norm()
        assert 0 < error < 0.05  # 8 bits: not the float model, and near it


def test_what_is_named_is_named_shortly_and_ends_keep_their_names(dense, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, artifact, batches = dense
    int8 = quantize(artifact, tmp_path / "int8.onnx", batches, SCHEMES[0])
    graph = onnx.load(int8.path).graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    assert ends == {spec.name for spec in (*artifact.inputs, *artifact.outputs)}
    inner = [*(t.name for t in graph.initializer), *(name for node in graph.node for name in node.output)]
    assert len(inner) == len(set(inner))
    assert all(name.isdecimal() for name in set(inner) - ends)
    assert len({node.name for node in graph.node}) == len(graph.node)
    assert int8.size_bytes < 2000  # of 600 bytes of weights; with the long names there are 3600


def test_the_float_file_as_a_module_is_the_model(dense) -> None:  # type: ignore[no-untyped-def]
    captured, artifact, batches = dense
    module = RuntimeModule(artifact, captured.module, captured.example_inputs)
    with torch.no_grad():
        torch.testing.assert_close(module(x=batches[0][0]), captured.module(batches[0][0]), rtol=1e-4, atol=1e-5)
    assert next(module.parameters()).device.type == "cpu"


def test_a_model_without_anything_to_quantise_is_refused(tmp_path: Path) -> None:
    captured = capture(nn.Sequential(nn.Tanh(), nn.Softplus()).eval(), (torch.randn(2, 4),))
    artifact = export(captured, tmp_path / "dense.onnx")
    with pytest.raises(UsageError, match="nothing in it to quantise"):
        quantize(artifact, tmp_path / "int8.onnx", [(torch.randn(4, 4),)], SCHEMES[0])
    assert not (tmp_path / "int8.onnx").exists()


def test_data_that_does_not_fit_is_told(dense, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, artifact, _ = dense
    with pytest.raises(UsageError, match=r"cannot quantise dense\.onnx"):
        quantize(artifact, tmp_path / "int8.onnx", [(torch.randn(4, 2, 12, 12),)], SCHEMES[0])
