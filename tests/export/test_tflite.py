from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import ParityError, StorageError, UsageError
from edgeprune.export import manifest, parity
from edgeprune.export.base import Exporter
from edgeprune.export.runtime_module import RuntimeModule
from edgeprune.export.tflite import TfliteExporter
from edgeprune.export.tflite_runner import TfliteRunner
from edgeprune.graph.capture import capture
from edgeprune.pipeline.export import export
from edgeprune.records.artifact import Artifact
from edgeprune.testing.exporters import ExporterContract
from tests.export.tflite_models import EXAMPLES, RUNTIMES, needed, tagger


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The network in both layouts, exported and checked."""
    needed("tflite")
    folder = tmp_path_factory.mktemp("tflite")
    captured = capture(tagger(), EXAMPLES)
    formats = {"nchw": "tflite", "nhwc": "tflite:layout=nhwc"}
    return {name: export(captured, folder / f"{name}.tflite", format=each) for name, each in formats.items()}


class TestContract(ExporterContract):
    """At one sample where the batch is free."""

    @pytest.fixture(autouse=True)
    def _needed(self) -> None:
        needed("tflite")

    factory = staticmethod(TfliteExporter)


def test_is_an_exporter_and_knows_its_layouts() -> None:
    assert isinstance(TfliteExporter(), Exporter)
    with pytest.raises(UsageError, match="'nhcw' is no layout") as caught:
        TfliteExporter("nhcw")
    assert caught.value.hint == "layouts: nchw, nhwc"


def test_inputs_and_outputs_are_called_and_shaped_as_in_the_network(files: dict[str, Artifact]) -> None:
    artifact = files["nchw"]
    assert [(spec.name, spec.dtype, spec.shape) for spec in artifact.inputs] == [
        ("image", "float32", (1, 3, 6, 6)),
        ("words", "int32", (1, 2)),  # TFLite knows no 64 bits that accelerators take
    ]
    assert [spec.shape for spec in artifact.outputs] == [(1, 5), (1, 8, 6, 6)]
    assert artifact.provenance["exporter"] == "litert-torch"
    assert artifact.provenance["parity_error"] < 1e-5
    runtimes = artifact.provenance["parity_runtimes"]
    assert next(iter(runtimes)).startswith("ai-edge-litert ")
    assert max(runtimes.values()) == artifact.provenance["parity_error"]


def test_nhwc_turns_images_and_nothing_else(files: dict[str, Artifact]) -> None:
    artifact = files["nhwc"]
    assert [spec.shape for spec in artifact.inputs] == [(1, 6, 6, 3), (1, 2)]
    assert [spec.shape for spec in artifact.outputs] == [(1, 5), (1, 6, 6, 8)]
    assert artifact.provenance["parity_error"] < 1e-5
    assert artifact.provenance["channels_last"]["inputs"] == ["image"]


def test_a_manifest_reads_back(files: dict[str, Artifact]) -> None:
    assert manifest.read(files["nhwc"].path) == files["nhwc"]


def test_nothing_of_the_machine_or_of_the_user_s_code_is_in_the_file(files: dict[str, Artifact]) -> None:
    data = files["nchw"].path.read_bytes()
    assert files["nchw"].sha256 == hashlib.sha256(data).hexdigest()
    assert files["nchw"].size_bytes == len(data)
    for private in (str(Path.cwd()), str(Path.home()), "Tagger", "Conv2d", "GraphModule", "serving_default_", "stem"):
        assert private.encode() not in data, private


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_evaluated_at_any_batch_it_answers_as_the_network(files: dict[str, Artifact], layout: str) -> None:
    network = tagger()
    module = RuntimeModule(files[layout], network, EXAMPLES)
    images, words = torch.randn(5, 3, 6, 6), torch.randint(0, 7, (5, 2))
    with torch.no_grad():
        wanted, got = network(images, words), module(images, words)
    assert list(got) == ["scores", "features"]
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5)


def test_another_network_is_told_by_the_runtime(files: dict[str, Artifact]) -> None:
    other = tagger()
    with torch.no_grad():
        other.head.bias[0] += 3
    with pytest.raises(ParityError, match=r"'output_0' differs from the model by .* ai-edge-litert ") as caught:
        parity.check(files["nchw"], other, EXAMPLES)
    assert caught.value.exit_code == 5


def test_a_file_that_the_runtime_cannot_load(files: dict[str, Artifact], tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(files["nchw"].path.read_bytes()[:3000])
    with pytest.raises(ParityError, match=r"ai-edge-litert .* cannot load broken\.tflite"):
        TfliteRunner(replace(files["nchw"], path=broken, sha256=hashlib.sha256(broken.read_bytes()).hexdigest()))
    with pytest.raises(ParityError, match=r"cannot load broken\.tflite: ValueError: the file is not the one"):
        TfliteRunner(replace(files["nchw"], path=broken, sha256="0" * 64))


def test_inputs_that_do_not_fit_are_told_with_their_case(files: dict[str, Artifact]) -> None:
    runner = TfliteRunner(files["nchw"])
    with pytest.raises(ParityError, match=r"cannot run nchw\.tflite \(a test\): .*inputs"):
        runner({"image": np.zeros((1, 3, 6, 6), np.float32)}, "a test")
    runner.close()
    runner.close()


@pytest.mark.parametrize(("environment", "runtime"), RUNTIMES.items())
def test_in_each_runtime_it_is_the_same_as_its_manifest_says(
    files: dict[str, Artifact], environment: str, runtime: str
) -> None:
    where = needed(environment)
    runner = TfliteRunner(files["nchw"], where, runtime)
    assert runner.runtime == f"{runtime} {where.versions[runtime]}"
    error = parity.check(files["nchw"], tagger(), EXAMPLES, runner=runner)
    assert error < 1e-5
    told = json.loads(manifest.manifest_path(files["nchw"].path).read_text())["provenance"]["parity_runtimes"]
    assert told[runner.runtime] == pytest.approx(error, rel=0.5)


def test_a_module_in_training_stays_so_and_an_operator_without_a_form_is_named(tmp_path: Path) -> None:
    needed("tflite")

    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigh(x @ x.transpose(1, 2)).eigenvalues

    module = Sorted().train()
    with pytest.raises(UsageError, match="cannot be exported to TFLite: ") as caught:
        TfliteExporter().export(module, (torch.randn(1, 4, 4),), tmp_path / "x.tflite")
    assert "eigh" in caught.value.message
    assert module.training
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    needed("tflite")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        TfliteExporter().export(nn.ReLU(), (torch.ones(1, 3),), tmp_path / "file" / "x.tflite")
