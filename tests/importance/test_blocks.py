"""Block influence, on blocks whose effect is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import UsageError
from edgeprune.graph.capture import capture
from edgeprune.importance.blocks import block_influence


class Scaled(nn.Module):
    """x, then x + a·x for each a: turned by nothing where a > -1, and around where a < -1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.same, self.longer, self.around = (nn.Parameter(torch.full((4,), a)) for a in (0.0, 1.5, -3.0))
        self.swap = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.same * x
        x = x + self.longer * x
        x = (self.around * x).add_(x)
        x = x + self.swap(x)
        result: Tensor = self.head(x)
        return result


def test_influence_is_one_minus_the_cosine() -> None:
    model = Scaled()
    with torch.no_grad():
        model.stem.weight.copy_(torch.eye(4))
        model.stem.bias.zero_()
        # (1, 0, 0, 0) becomes (1, 1, 0, 0): 45 degrees; (0, 1, 0, 0) stays as it is.
        model.swap.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    captured = capture(model, (torch.randn(2, 4),))
    captured.module.train()
    batches = [torch.tensor([[1.0, 0, 0, 0]]), (torch.tensor([[0.0, 1, 0, 0], [0, 2, 0, 0]]),)]
    found = block_influence(captured, batches)
    expected = {"same": 0.0, "longer": 0.0, "around": 2.0, "swap": (1 - 0.5**0.5) / 3}
    assert found == pytest.approx(expected, abs=1e-12)
    assert captured.module.training
    assert found == block_influence(captured, batches)


def test_without_data_it_is_refused() -> None:
    with pytest.raises(UsageError, match="needs calibration batches"):
        block_influence(capture(Scaled(), (torch.randn(2, 4),)), [])
