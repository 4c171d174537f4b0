from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from edgeprune.errors import ParityError, UsageError
from edgeprune.export import manifest
from edgeprune.export.onnx import OnnxExporter
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.pipeline.export import export
from edgeprune.testing.importances import SmallNetwork


def captured() -> Captured:
    torch.manual_seed(0)
    return capture(SmallNetwork(), (torch.randn(1, 2, 5, 5),))


def test_pruned_model_becomes_a_checked_file_with_its_manifest(tmp_path: Path) -> None:
    pruned = captured().prune(captured().uniform(0.5))
    artifact = export(pruned, tmp_path / "net.onnx")
    assert manifest.read(tmp_path / "net.onnx") == artifact
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.onnx.manifest.json"]
    # first 2 -> 2, norm 2, second 2 -> 3, head 3 -> 3
    assert artifact.provenance["params"] == (2 * 9 * 2 + 2) + 4 + (2 * 9 * 3 + 3) + (3 * 3 + 3)
    assert artifact.provenance["macs"] == 9 * (2 * 9 * 2) + 2 * 9 * 3 + 3 * 3
    assert artifact.provenance["candidate"] == pruned.candidate.id
    assert artifact.provenance["parity_error"] < 1e-5
    assert list(artifact.provenance["parity_runtimes"]) == [f"onnxruntime {onnxruntime.__version__}"]
    assert artifact.provenance["verification_error"] < 1e-5
    x = torch.randn(4, 2, 5, 5)
    with torch.no_grad():
        expected = pruned.module(x)
    actual = onnxruntime.InferenceSession(str(artifact.path)).run(None, {artifact.inputs[0].name: x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-4, atol=1e-5)


def test_dense_model_has_no_candidate(tmp_path: Path) -> None:
    provenance = export(captured(), tmp_path / "net.onnx").provenance
    assert "candidate" not in provenance
    assert provenance["params"] == sum(p.numel() for p in SmallNetwork().parameters())


def test_extra_provenance_and_no_machine_path_in_the_manifest(tmp_path: Path) -> None:
    export(captured(), tmp_path / "net.onnx", provenance={"trial": 3})
    text = (tmp_path / "net.onnx.manifest.json").read_text()
    assert json.loads(text)["provenance"]["trial"] == 3
    assert str(tmp_path) not in text


def test_same_model_same_artifact(tmp_path: Path) -> None:
    assert export(captured(), tmp_path / "a.onnx").sha256 == export(captured(), tmp_path / "b.onnx").sha256


def test_model_with_a_fixed_batch(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.reshape(2, 3)).reshape(2, 4)

    model = capture(Fixed(), (torch.randn(2, 3),))
    assert export(model, tmp_path / "net.onnx").inputs[0].shape == (2, 3)


def test_file_that_fails_the_check_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(OnnxExporter):
        def export(self, module, *arguments, **options):  # type: ignore[no-untyped-def]
            other = capture(SmallNetwork(), (torch.randn(1, 2, 5, 5),)).module
            return super().export(other, *arguments, **options)

    export(captured(), tmp_path / "net.onnx")  # an older, good one at the same place
    monkeypatch.setattr("edgeprune.export.onnx.OnnxExporter", Wrong)
    with pytest.raises(ParityError, match="differs from the model"):
        export(captured(), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_suffix_and_format_must_agree(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"net\.tflite: a file of format 'onnx' ends in \.onnx"):
        export(captured(), tmp_path / "net.tflite", format="onnx")
    with pytest.raises(UsageError, match=r"net\.bin: no exporter writes \.bin"):
        export(captured(), tmp_path / "net.bin")
    with pytest.raises(UsageError, match="unknown exporter 'onxx'") as caught:
        export(captured(), tmp_path / "net.onnx", format="onxx")
    assert "onnx" in (caught.value.hint or "")
