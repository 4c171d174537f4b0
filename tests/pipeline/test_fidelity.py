"""Outputs of a pruned network beside the dense one's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.pipeline.fidelity import fidelity


def scores(weight: list[list[float]]) -> Captured:
    net = nn.Linear(2, len(weight), bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weight))
    return capture(net, torch.zeros(2, 2))


def test_agreement_and_error_are_of_all_examples() -> None:
    dense, other = scores([[1, 0], [0, 1]]), scores([[1, 0], [0, 0.25]])
    x = torch.tensor([[2.0, 1], [1, 2], [3, 1], [1, 8]])  # the second row changes its class
    (found,) = fidelity(other, dense, [(x[:3],), (x[3:],)])
    assert found.name == "0"
    assert found.agreement == 0.75
    error = (0.75**2 * (1 + 4 + 1 + 64)) / (5 + 5 + 10 + 65)
    assert found.relative_error == pytest.approx(math.sqrt(error))


def test_each_output_has_what_applies_to_it() -> None:
    class Many(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor([factor]))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            y = x * self.factor
            return y[:, :, None], y.argmax(1), y * 0, y / (self.factor - 1)

    dense, other = capture(Many(-2.0), torch.ones(2, 3)), capture(Many(1.0), torch.ones(2, 3))
    dense.output_names = ("map", "class", "nothing", "endless")
    found = fidelity(other, dense, [(torch.tensor([[1.0, 2, 3], [3, 2, 1], [5, 5, 5]]),)])
    assert [output.name for output in found] == ["map", "class", "nothing", "endless"]
    assert [output.agreement for output in found][:2] == [None, 1 / 3]
    assert [output.relative_error for output in found] == [1.5, None, 0.0, None]


def test_the_modes_stay_as_they_were() -> None:
    dense = capture(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9)), torch.zeros(2, 2))
    dense.module.train()
    (found,) = fidelity(dense, dense, [(torch.ones(4, 2),)])
    assert (found.agreement, found.relative_error) == (1.0, 0.0)
    assert dense.module.training
