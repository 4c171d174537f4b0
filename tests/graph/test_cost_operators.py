"""Multiply-accumulates against counts by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import edgeprune as ep


class Tagger(nn.Module):
    def __init__(self, recurrent: nn.Module, width: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0])


class Einsum(nn.Module):
    def __init__(self, equation: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.equation = equation
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum(self.equation, x, self.weight)


HEAD = 20 * 128 * 10


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (Tagger(nn.LSTM(64, 128, batch_first=True), 128), (20, 64), 20 * (4 * 128 * 64 + 4 * 128 * 128) + HEAD),
        (Tagger(nn.GRU(64, 128, batch_first=True), 128), (20, 64), 20 * (3 * 128 * 64 + 3 * 128 * 128) + HEAD),
        (Tagger(nn.RNN(64, 128, batch_first=True), 128), (20, 64), 20 * (128 * 64 + 128 * 128) + HEAD),
        (
            Tagger(nn.LSTM(64, 64, num_layers=2, bidirectional=True, batch_first=True), 128),
            (20, 64),
            20 * 2 * (4 * 64 * 64 + 4 * 64 * 64 + 4 * 64 * 128 + 4 * 64 * 64) + HEAD,
        ),
        (nn.ConvTranspose2d(4, 8, 3, 2), (4, 5, 6), 4 * 5 * 6 * 8 * 9),
        (nn.ConvTranspose2d(4, 8, 3, 2, groups=2), (4, 5, 6), 4 * 5 * 6 * 4 * 9),
        (Einsum("bth,hkd->btkd", (16, 2, 8)), (5, 16), 5 * 16 * 2 * 8),
        (Einsum("...h,hk->...k", (16, 3)), (5, 7, 16), 5 * 7 * 16 * 3),
    ],
    ids=["lstm", "gru", "rnn", "two layers, both ways", "transposed", "grouped", "einsum", "ellipsis"],
)
def test_counts_by_hand(model: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    captured = ep.capture(model.eval(), torch.randn(2, *shape))
    assert captured.cost().macs == macs


def test_files_are_named_by_text_or_path(tmp_path: Path) -> None:
    captured = ep.capture(nn.Linear(4, 3), torch.randn(2, 4))
    ep.save(captured, str(tmp_path / "x.pt2"))
    assert ep.load(str(tmp_path / "x.pt2")).cost() == captured.cost()


@pytest.mark.parametrize("option", [{"granularity": "outre"}, {"grouped": "group"}])
def test_a_mistyped_granularity_is_refused(option: dict[str, str]) -> None:
    with pytest.raises(ep.EdgepruneError, match=next(iter(option.values()))):
        ep.capture(nn.Linear(4, 3), torch.randn(2, 4), **option)
