"""The artifact alone: that a board builds and times it is tested in tests/agent/test_tensorrt.py."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import onnx
import pytest

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.export.tensorrt import TensorRtExporter
from edgeprune.pipeline.export import export
from edgeprune.testing.exporters import ExporterContract
from tests.export.networks import pruned


class TestTensorRtExporter(ExporterContract):
    factory = staticmethod(TensorRtExporter)


@pytest.mark.parametrize("name", ["resnet", "vit"])  # the ONNX in it is that of the ONNX exporter
def test_pruned_networks_hold_the_model_and_its_recipe(tmp_path: Path, name: str) -> None:
    model = pruned(name)
    artifact = export(model, tmp_path / "net.tensorrt", format="tensorrt")
    assert artifact.provenance["parity_error"] <= 1e-5
    assert artifact.provenance["parity_by"] == "ONNX Runtime: TensorRT runs on the board alone"
    assert artifact.provenance["build"] == [
        "trtexec",
        "--onnx=model.onnx",
        "--saveEngine=model.engine",
        "--noTF32",
    ]
    with zipfile.ZipFile(artifact.path) as archive:
        assert json.loads(archive.read("build.json"))["arguments"] == ["--noTF32"]
        inside = onnx.load_model_from_string(archive.read("model.onnx"))
    shape = [dim.dim_value for dim in inside.graph.input[0].type.tensor_type.shape.dim]
    assert tuple(shape) == artifact.inputs[0].shape == tuple(model.example_inputs[0].shape)


def test_precisions(tmp_path: Path) -> None:
    model = pruned("ds_cnn")
    artifact = export(model, tmp_path / "net.tensorrt", format="tensorrt:precision=fp16")
    assert artifact.provenance["build"][3:] == ["--fp16"]
    with pytest.raises(UsageError, match="'int4' is no precision") as caught:
        registry.create("exporters", "tensorrt:precision=int4")
    assert caught.value.hint == "precisions: fp16, fp32, tf32"
