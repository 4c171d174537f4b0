from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.base import FloatModel, Quantizer
from edgeprune.export.executorch import ExecuTorchExporter, ExecuTorchQuantizer
from edgeprune.export.runner import open_runner
from edgeprune.pipeline.export import export
from edgeprune.testing.exporters import ExporterContract
from tests.export.networks import NETWORKS, needs, pruned


@pytest.fixture(autouse=True)
def environment() -> None:
    needs("executorch")


class TestExecuTorchExporter(ExporterContract):
    factory = staticmethod(ExecuTorchExporter)

    def test_tells_nothing_of_the_machine(self, tmp_path: Path) -> None:
        """But for "forward", which is what the format calls its method."""
        data = self._export(tmp_path).path.read_bytes()
        for private in (str(tmp_path), str(Path.cwd()), str(Path.home()), "SmallNetwork", ".py"):
            assert private.encode() not in data, private


def signal_to_noise(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum()))


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_networks_are_what_executorch_computes(tmp_path: Path, name: str) -> None:
    model = pruned(name)
    artifact = export(model, tmp_path / "net.pte", format="executorch")
    assert artifact.provenance["parity_error"] <= 1e-5
    assert artifact.provenance["delegate"] == "xnnpack"
    portable = artifact.provenance.get("portable_operators", [])
    assert not [operator for operator in portable if "conv" in operator or "addmm" in operator]
    assert artifact.inputs[0].shape == tuple(model.example_inputs[0].shape)
    assert manifest.read(artifact.path) == artifact


def test_int8_of_either_scheme(tmp_path: Path) -> None:
    assert isinstance(registry.resolve("quantizers", "executorch")(), Quantizer)
    pruned_model = pruned("ds_cnn")
    artifact = export(pruned_model, tmp_path / "float.pte", format="executorch")
    model = FloatModel(pruned_model.module, pruned_model.example_inputs, artifact, pruned_model.batch_dynamic)
    torch.manual_seed(1)
    batches = [(torch.randn(8, 1, 49, 10),), (torch.randn(8, 1, 49, 10),)]
    x = torch.randn(6, 1, 49, 10)
    with torch.no_grad():
        wanted = pruned_model.module(x).numpy()
    for scheme in ExecuTorchQuantizer.schemes:
        path = tmp_path / f"{scheme.key}.pte"
        made = ExecuTorchQuantizer().quantize(model, path, batches, scheme)
        assert (made.inputs, made.outputs) == (artifact.inputs, artifact.outputs)
        assert made.provenance["quantised"] == scheme.name
        assert made.provenance["float_sha256"] == artifact.sha256
        assert "parity_error" not in made.provenance
        found = open_runner(made)({"x": x.numpy()})[0]  # six rows, one by one
        assert signal_to_noise(wanted, found) > 25


def test_nothing_to_quantise_is_said(tmp_path: Path) -> None:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(x)

    x = (torch.randn(1, 4),)
    artifact = ExecuTorchExporter().export(Squared(), x, tmp_path / "net.pte")
    model = FloatModel(Squared(), x, artifact)
    with pytest.raises(UsageError, match="finds nothing in it to quantise"):
        ExecuTorchQuantizer().quantize(model, tmp_path / "int8.pte", [x], ExecuTorchQuantizer.schemes[0])
    assert not (tmp_path / "int8.pte").exists()
