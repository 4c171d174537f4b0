from __future__ import annotations

import torch
from torch import nn

from edgeprune.graph.capture import capture
from edgeprune.graph.normalisation import Normalisation, normalisations

RUNNING = ("0.running_mean", "0.running_var")


def test_of_modules_and_of_the_captured_graph() -> None:
    model = nn.Sequential(
        nn.BatchNorm1d(4, momentum=0.3), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4, elementwise_affine=False)
    )
    batch, layer = Normalisation("0.weight", "0.bias", *RUNNING, 0.3), Normalisation("1.weight", "1.bias")
    assert normalisations(model) == (batch, layer, Normalisation(None, None))
    assert normalisations(capture(model, (torch.randn(2, 4),)).module) == (batch, layer)


def test_batch_norm_without_scale_or_statistics() -> None:
    plain = nn.Sequential(nn.BatchNorm1d(4, affine=False))
    bare = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False))
    for model, expected in (
        (plain, Normalisation(None, None, *RUNNING, 0.1)),
        (bare, Normalisation("0.weight", "0.bias", None, None, 0.1)),
    ):
        assert normalisations(model) == (expected,)
        assert normalisations(capture(model, (torch.randn(2, 4),)).module) == (expected,)


def test_group_norm() -> None:
    found = normalisations(capture(nn.Sequential(nn.GroupNorm(2, 4)), (torch.randn(2, 4, 3),)).module)
    assert found == (Normalisation("0.weight", "0.bias"),)
