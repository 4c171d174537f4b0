"""What cannot be pruned says why, in words of layers; no parameter is missing from groups and frozen ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.graph.storage import load, save
from tests.graph.models import FAMILIES, build


class Sorting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(dim=1).values


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.gate = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(x, x, x)[0]
        return x + self.gate * y


MODELS: dict[str, tuple[nn.Module, Tensor]] = {
    "sorting": (nn.Sequential(nn.Linear(6, 8), Sorting(), nn.Linear(8, 4)), torch.randn(2, 6)),
    "weight_norm": (nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4)), torch.randn(2, 6)),
    "spectral_norm": (nn.Sequential(spectral_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4)), torch.randn(2, 6)),
    "attention": (nn.Sequential(nn.Linear(6, 8), Attention(), nn.Linear(8, 4)), torch.randn(2, 3, 6)),
    "lstm": (nn.LSTM(6, 8, batch_first=True), torch.randn(2, 3, 6)),
    "one channel": (nn.Sequential(nn.Conv2d(3, 1, 1), nn.PReLU(), nn.Conv2d(1, 4, 1)), torch.randn(2, 3, 4, 4)),
}


def captured_of(name: str) -> Captured:
    if name in FAMILIES:
        return capture(*build(name))
    model, inputs = MODELS[name]
    return capture(model, (inputs,))


@pytest.mark.parametrize("name", [*FAMILIES, *MODELS])
def test_every_parameter_is_in_a_group_or_frozen_with_a_reason(name: str) -> None:
    captured = captured_of(name)
    listed = {member.parameter for group in (*captured.groups, *captured.frozen) for member in group.members}
    missing = {n for n, p in captured.module.named_parameters() if p.is_floating_point() and p.dim()} - listed
    assert not missing
    assert all(group.units > 1 and group.frozen is None for group in captured.groups)
    assert all(group.frozen for group in captured.frozen)


def reasons(captured: Captured) -> dict[str, str | None]:
    return {group.name: group.frozen for group in captured.frozen}


def test_a_reason_names_the_operator_and_the_layer_also_of_a_saved_model(tmp_path: Path) -> None:
    captured = captured_of("sorting")
    save(captured, tmp_path / "model.pt2")
    expected = {"0": "sort in 1 ranks along it", "2": "is the model's output"}
    assert reasons(captured) == expected
    assert reasons(load(tmp_path / "model.pt2")) == expected


def test_a_bias_goes_with_its_layer_and_a_single_unit_is_frozen() -> None:
    captured = captured_of("one channel")
    assert [(g.name, g.frozen, [m.parameter for m in g.members]) for g in captured.frozen] == [
        ("0", "conv2d in 0 multiplies it with a fixed dimension", ["0.weight"]),  # its inputs
        ("0", "is a single unit", ["0.bias"]),
        ("1", "is a single unit", ["1.weight"]),
        ("2", "is the model's output", ["2.weight", "2.bias"]),
    ]
