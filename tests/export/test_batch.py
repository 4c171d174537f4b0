from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import UsageError
from edgeprune.export.onnx import OnnxExporter
from edgeprune.graph.capture import capture
from edgeprune.pipeline.export import export
from tests.export.running import largest_error


class HeadsInTheBatch(nn.Module):
    """Heads and rows of the batch share one dimension, which is sliced whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
        self.position = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        heads = self.first(x).reshape(rows * 4, 4)  # (row × head, size)
        biased = (heads @ self.position)[:, :4][: rows * 4].reshape(rows * 4, 4)
        return self.last((heads + biased).reshape(rows, 16))


def test_pruned_heads_that_share_a_dimension_with_the_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    captured = capture(HeadsInTheBatch(), torch.randn(1, 6))
    assert captured.batch_dynamic
    pruned = captured.prune(captured.uniform(0.5))
    assert pruned.module.get_parameter("first.weight").shape == (8, 6)  # two heads of four
    artifact = export(pruned, tmp_path / "net.onnx")
    for batch in (1, 2, 5):
        x = torch.randn(batch, 6)
        assert pruned.module(x).shape == (batch, 3)
        assert largest_error(artifact, pruned.module, x) < 1e-5


def test_batch_that_the_module_fixes_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(2, 3)

    with pytest.raises(UsageError, match="one batch size alone"):
        OnnxExporter().export(Fixed(), (torch.randn(2, 3),), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
