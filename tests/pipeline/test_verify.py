"""A saved pair is proved to belong together, and what was changed afterwards is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgeprune.cli.main import run_cli
from edgeprune.errors import CaptureError, ParityError, UsageError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Pruned
from edgeprune.graph.storage import save
from edgeprune.pipeline.verify import verify
from edgeprune.records.candidate import Candidate
from edgeprune.recovery.reconstruct import reconstruct
from tests.graph.models import build


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pair") / "dense.pt2"
    save(capture(*build("vit")), path)
    return path


def pruned_from(dense: Path) -> Pruned:
    captured = capture(*build("vit"))
    return captured.prune(Candidate(captured.uniform(0.25).kept, ("blocks.1.mlp",)))


def test_a_pair_is_proved_and_its_candidate_known(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned, small = pruned_from(dense), tmp_path / "small.pt2"
    pruned.save(small)
    found = verify(dense, small)
    assert (found.candidate.id, found.trained) == (pruned.candidate.id, ())
    assert found.verification.relative_error < 1e-12
    assert run_cli(["verify", str(dense), str(small), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["candidate"]["dropped_blocks"] == ["blocks.1.mlp"]
    assert told["other_batch"] == found.verification.other_batch > 1
    assert 0 < told["other_batch_error"] == found.verification.other_batch_error < 1e-12
    assert run_cli(["verify", str(dense), str(small)]) == 0
    assert f" at batch {told['other_batch']}, in float64" in capsys.readouterr().out


def test_trained_weights_are_told_from_a_wrong_graph(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned, small = pruned_from(dense), tmp_path / "small.pt2"
    with torch.no_grad():
        pruned.module.get_parameter("head.weight").add_(0.1)
    pruned.save(small)
    with pytest.raises(ParityError, match=r"1 weights differ .*: head\.weight$"):
        verify(dense, small)
    assert verify(dense, small, trained=True).trained == ("head.weight",)
    assert run_cli(["verify", str(dense), str(small)]) == 5
    assert "--trained" in capsys.readouterr().err
    for node in pruned.module.graph.nodes:  # the graph itself: an activation less
        if node.op == "call_function" and "gelu" in str(node.target):
            node.replace_all_uses_with(node.args[0])
            break
    pruned.module.recompile()
    pruned.save(small)
    with pytest.raises(ParityError, match="differs from its reference"):
        verify(dense, small, trained=True)


def test_another_model_and_other_files_are_refused(dense: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.pt2"
    captured = capture(*build("vit"))
    captured.prune(Candidate({"blocks.0.mlp.0": (0, 1)})).save(small)
    with torch.no_grad():
        captured.module.get_parameter("head.bias").add_(1.0)
    save(captured, tmp_path / "other.pt2")
    with pytest.raises(ParityError, match=r"weights differ .*head\.bias"):
        verify(tmp_path / "other.pt2", small)
    with pytest.raises(CaptureError, match="does not say what was pruned"):
        verify(dense, dense)
    with pytest.raises(CaptureError, match="not a readable"):
        verify(dense, tmp_path / "none.pt2")
    with pytest.raises(UsageError, match=r"only \.pt2 files"):
        verify(dense, tmp_path / "small.onnx")


def test_a_bias_that_reconstruction_added_is_told_from_a_changed_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.Conv2d(8, 4, 1),
    ).eval()
    inputs = torch.randn(4, 3, 9, 9)
    captured = capture(model, inputs)
    dense, small = tmp_path / "dense.pt2", tmp_path / "small.pt2"
    save(captured, dense)
    pruned = captured.prune(captured.uniform(0.25))
    reconstruct(pruned, captured, [(torch.randn(16, 3, 9, 9),) for _ in range(4)])
    assert "2.bias" in pruned.module.state_dict()
    pruned.save(small)
    with pytest.raises(ParityError, match=r"differ .*2\.") as caught:
        verify(dense, small)
    assert "reconstructed" in str(caught.value.hint)
    found = verify(dense, small, trained=True)
    assert "2.bias" in found.trained
    assert found.verification.relative_error < 1e-12
