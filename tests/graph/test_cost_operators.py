"""Multiply-accumulates against counts by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import edgeprune as ep


class Tagger(nn.Module):
    def __init__(self, recurrent: nn.Module, width: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.recurrent(x)[0])
        return scores


class Einsum(nn.Module):
    def __init__(self, equation: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.equation = equation
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum(self.equation, x, self.weight)


class Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


def per_example(weight: Tensor, x: Tensor) -> Tensor:
    return weight.expand(x.shape[0], *weight.shape)


def cell(x: Tensor, initial: Tensor, inner: Tensor, recurrent: Tensor) -> Tensor:
    state = initial.expand(x.shape[0], -1)
    return torch.lstm_cell(x, (state, state), inner, recurrent)[0]


HEAD = 20 * 128 * 10
GATES = 20 * 4 * 128 * (64 + 128)


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
        (nn.LSTM(64, 128, proj_size=32, batch_first=True), (20, 64), 20 * (4 * 128 * (64 + 32) + 32 * 128)),
        (weight_norm(nn.LSTM(64, 128, batch_first=True), "weight_hh_l0"), (20, 64), GATES),
        (Function(cell, (8,), (32, 16), (32, 8)), (16,), 32 * 16 + 32 * 8),
        (nn.ConvTranspose2d(4, 8, 3, 2), (4, 5, 6), 4 * 5 * 6 * 8 * 9),
        (nn.ConvTranspose2d(4, 8, 3, 2, groups=2), (4, 5, 6), 4 * 5 * 6 * 4 * 9),
        (Einsum("bth,hkd->btkd", (16, 2, 8)), (5, 16), 5 * 16 * 2 * 8),
        (Einsum("...h,hk->...k", (16, 3)), (5, 7, 16), 5 * 7 * 16 * 3),
        (Einsum("bij,jk->bk", (5, 3)), (4, 5), 5 * 3),  # i is summed before the product
        (Function(lambda x, w, u: F.bilinear(x, x @ u, w), (7, 5, 6), (5, 6)), (5,), 5 * 6 + 7 * (5 + 1) * 6),
        (Function(lambda x, w: torch.bmm(x, per_example(w, x)), (5, 3)), (4, 5), 4 * 5 * 3),
        (Function(lambda x, w, b: torch.baddbmm(b, x, per_example(w, x)), (5, 3), (4, 3)), (4, 5), 4 * 5 * 3),
        (Function(lambda x, w, b: torch.addbmm(b, x, per_example(w, x)), (5, 3), (4, 3)), (4, 5), 4 * 5 * 3),
        (Function(torch.inner, (3, 5)), (4, 5), 4 * 5 * 3),
        (Function(torch.linalg.matmul, (5, 3)), (4, 5), 4 * 5 * 3),
        (Function(torch.matmul, (5,)), (4, 5), 4 * 5),
        (Function(lambda x, w: torch.tensordot(x, w, 2), (4, 5, 3)), (4, 5), 4 * 5 * 3),
        (Function(lambda x: F.scaled_dot_product_attention(x, x, x)), (2, 7, 8), 2 * 7 * 7 * 8 * 2),
    ],
    ids=[
        *("lstm", "gru", "rnn", "two layers, both ways", "projection", "weight norm", "cell", "transposed", "grouped"),
        *("einsum", "ellipsis", "summed first", "bilinear", "bmm", "baddbmm", "addbmm", "inner", "linalg", "vector"),
        *("tensordot", "attention"),
    ],
)
def test_counts_by_hand(model: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    captured = ep.capture(model.eval(), torch.randn(2, *shape))
    assert (captured.cost().macs, captured.cost().uncounted) == (macs, ())


def test_a_pruned_recurrent_layer_is_counted_by_its_width() -> None:
    captured = ep.capture(Tagger(nn.LSTM(64, 128, batch_first=True), 128).eval(), torch.randn(1, 20, 64))
    pruned = captured.prune(captured.uniform(0.5))
    assert captured.cost().macs == GATES + HEAD == 1_991_680
    assert pruned.cost().macs == 20 * 4 * 64 * (64 + 64) + 20 * 64 * 10


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x, w: torch.fft.rfft(x @ w).abs(), "fft_rfft"),
        (torch.cdist, "cdist"),
        (lambda x, w: torch.linalg.multi_dot([x, w, w]), "linalg_multi_dot"),
    ],
)
def test_operators_whose_products_are_not_counted_are_named(function: Callable[..., Tensor], named: str) -> None:
    assert ep.capture(Function(function, (5, 5)), torch.randn(2, 5)).cost().uncounted == (named,)


def test_what_only_moves_selects_or_scales_is_not_named() -> None:
    def function(x: Tensor) -> Tensor:
        x = F.interpolate(F.adaptive_avg_pool2d(F.pad(x, (1, 1, 1, 1), "reflect"), 4), scale_factor=2.0).cumsum(-1)
        x = F.local_response_norm(x.masked_fill(x > 1, 0.0).tril().roll(1, -1), 2) * torch.rsqrt(
            x.var(1, keepdim=True) + 1
        )
        return x.index_select(1, x.flatten().topk(2).indices % 3).clamp_(0, 1)

    assert ep.capture(Function(function), torch.randn(2, 3, 8, 8)).cost().uncounted == ()


def test_files_are_named_by_text_or_path(tmp_path: Path) -> None:
    captured = ep.capture(nn.Linear(4, 3), torch.randn(2, 4))
    ep.save(captured, str(tmp_path / "x.pt2"))
    assert ep.load(str(tmp_path / "x.pt2")).cost() == captured.cost()


@pytest.mark.parametrize("option", [{"granularity": "outre"}, {"grouped": "group"}])
def test_a_mistyped_granularity_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ep.EdgepruneError, match=next(iter(option.values()))):
        ep.capture(nn.Linear(4, 3), torch.randn(2, 4), **option)
