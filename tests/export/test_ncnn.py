from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgeprune as ep
from edgeprune import registry
from edgeprune.errors import ParityError, UsageError
from edgeprune.export import manifest, parity
from edgeprune.export.ncnn import NcnnExporter, renamed
from edgeprune.export.runner import open_runner
from edgeprune.export.stored import stored_zip
from edgeprune.pipeline.export import check_output, export
from edgeprune.testing.exporters import ExporterContract
from edgeprune.testing.importances import SmallNetwork
from tests.export.networks import NETWORKS, needs, pruned


@pytest.fixture(autouse=True)
def environment() -> None:
    needs("ncnn")


class TestNcnnExporter(ExporterContract):
    factory = staticmethod(NcnnExporter)


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_networks_are_what_ncnn_computes(tmp_path: Path, name: str) -> None:
    model = pruned(name)
    artifact = export(model, tmp_path / "net.ncnn", format="ncnn")
    assert artifact.provenance["parity_error"] <= 1e-5
    assert artifact.inputs[0].name == "x"
    assert artifact.inputs[0].shape == tuple(model.example_inputs[0].shape)
    assert manifest.read(artifact.path) == artifact
    with zipfile.ZipFile(artifact.path) as archive:
        assert [(info.filename, info.compress_type) for info in archive.infolist()] == [
            ("model.param", zipfile.ZIP_STORED),
            ("model.bin", zipfile.ZIP_STORED),
        ]


class Reduced(nn.Module):
    """A sequence of tokens, reduced over one dimension."""

    def __init__(self, kind: str, axis: int, keep: bool) -> None:
        super().__init__()
        self.kind, self.axis, self.keep = kind, axis, keep
        self.tokens = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        reduced: Tensor = getattr(self.tokens(x), self.kind)(self.axis, keepdim=self.keep)
        return reduced * 2


@pytest.mark.parametrize("kind", ["mean", "sum"])
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("keep", [False, True])
def test_one_dimension_is_reduced(tmp_path: Path, kind: str, axis: int, keep: bool) -> None:
    model = ep.capture(Reduced(kind, axis, keep).eval(), (torch.randn(1, 5, 6),))
    artifact = export(model, tmp_path / "net.ncnn", format="ncnn")  # compares it with the network
    assert artifact.provenance["parity_error"] <= 1e-5


def test_weights_in_16_bits_take_half_the_size(tmp_path: Path) -> None:
    model = pruned("resnet")
    half = export(model, tmp_path / "half.ncnn", format="ncnn:storage=fp16")
    weights = 4 * sum(value.numel() for value in model.module.parameters())
    assert half.size_bytes < 0.7 * weights  # names and biases stay
    assert 1e-6 < half.provenance["parity_error"] <= 1e-3
    with pytest.raises(UsageError, match="'int4' is no storage of weights"):
        registry.create("exporters", "ncnn:storage=int4")


def test_several_rows_are_run_one_by_one(tmp_path: Path) -> None:
    module = SmallNetwork().eval()
    artifact = NcnnExporter().export(module, (torch.zeros(1, 2, 5, 5),), tmp_path / "net.ncnn")
    x = torch.randn(3, 2, 5, 5)
    with torch.no_grad():
        wanted = module(x).numpy()
    np.testing.assert_allclose(open_runner(artifact)({"x": x.numpy()})[0], wanted, rtol=1e-4, atol=1e-6)


def test_another_file_is_told_from_the_model(tmp_path: Path) -> None:
    """A weight that changed on the way is seen."""
    module, inputs = SmallNetwork().eval(), (torch.randn(1, 2, 5, 5),)
    artifact = NcnnExporter().export(module, inputs, tmp_path / "net.ncnn")
    with zipfile.ZipFile(artifact.path) as archive:
        param, weights = archive.read("model.param"), bytearray(archive.read("model.bin"))
    weights[4:8] = np.float32(3.0).tobytes()  # behind the first layer's flag
    data = stored_zip({"model.param": param, "model.bin": bytes(weights)})
    artifact.path.write_bytes(data)
    changed = manifest.artifact(
        artifact.path, data, format="ncnn", inputs=artifact.inputs, outputs=artifact.outputs, provenance={}
    )
    with pytest.raises(ParityError, match=r"net\.ncnn: output 'output' differs from the model by"):
        parity.check(changed, module, inputs)
    artifact.path.write_bytes(stored_zip({"model.param": b"7767517\n1 1\nNothing a 0 1 b\n", "model.bin": b""}))
    with pytest.raises(ParityError, match=r"ncnn \S+ cannot run net\.ncnn"):
        parity.check(replace(changed, sha256="0" * 64), module, inputs)


def test_operator_that_ncnn_has_not_is_named(tmp_path: Path) -> None:
    class EverySecondChannel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, ::2]

    with pytest.raises(UsageError, match=r"to ncnn: it has no form of Tensor\.slice \(slice with step 2 is not supp"):
        NcnnExporter().export(EverySecondChannel(), (torch.randn(1, 4, 4, 4),), tmp_path / "net.ncnn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(1, 3, dtype=torch.int64), r"ncnn takes 32-bit floating point, input 0 is torch\.int64"),
        (torch.zeros(2, 3), r"ncnn computes one sample at a time, input 0 has the shape \(2, 3\)"),
    ],
)
def test_inputs_that_ncnn_cannot_take_are_refused(tmp_path: Path, example: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NcnnExporter().export(nn.Identity(), (example,), tmp_path / "net.ncnn", batch_dynamic=False)


def test_inputs_and_outputs_are_called_as_asked() -> None:
    lines = ["7767517", "3 4", "Input in0 0 1 in0", "Split s 1 2 in0 1 2", "BinaryOp add 2 1 1 2 out0 0=0"]
    told = renamed("\n".join(lines), ["blob2"], ["scores"]).splitlines()
    assert [line.split() for line in told] == [
        ["7767517"],
        ["3", "4"],
        ["Input", "in0", "0", "1", "blob2"],
        ["Split", "s", "1", "2", "blob2", "blob2_", "blob3"],
        ["BinaryOp", "add", "2", "1", "blob2_", "blob3", "scores", "0=0"],
    ]


def test_names_of_an_onnx_file_become_those_of_blobs(tmp_path: Path) -> None:
    inputs = (torch.zeros(1, 2, 5, 5),)
    names = {"input_names": ("camera image",), "output_names": ("scores=1",)}
    artifact = NcnnExporter().export(SmallNetwork(), inputs, tmp_path / "net.ncnn", **names)
    assert (artifact.inputs[0].name, artifact.outputs[0].name) == ("camera_image", "scores_1")
    assert parity.check(artifact, SmallNetwork().eval(), inputs, tolerance=10) >= 0  # the names are found


def test_without_the_tools_the_way_to_them_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRUNE_NCNN_PYTHON", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("edgeprune.export.environment._is_here", lambda distribution: False)
    with pytest.raises(UsageError, match=r"export to \.ncnn, .* is not there") as caught:
        check_output(tmp_path / "net.ncnn", "ncnn")
    assert "edgeprune doctor --install ncnn" in str(caught.value.hint)
