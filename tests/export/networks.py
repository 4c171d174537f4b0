"""The four kinds of networks that every exporter is tried on, small and pruned, and where an exporter's tools are."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import UsageError
from edgeprune.export.environment import find
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Pruned
from tests.graph.models import build, conv_bn, randomised

NETWORKS = ("resnet", "mobilenet_v2", "ds_cnn", "vit")


class DsCnn(nn.Module):
    """Depthwise separable convolutions on a spectrogram of 49 × 10."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, (10, 4), (2, 2), (5, 1), bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2)
        )
        self.body = nn.Sequential(*(conv_bn(16, 16, size, 1, groups) for size, groups in ((3, 16), (1, 1)) * 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.body(self.stem(x))).flatten(1))


@cache
def pruned(name: str) -> Pruned:
    """The network, with about 40 % of its channels gone."""
    if name == "ds_cnn":
        torch.manual_seed(0)
        model, inputs = randomised(DsCnn()), (torch.randn(1, 1, 49, 10),)
    else:
        model, inputs = build(name)
    captured = capture(model, inputs)
    return captured.prune(captured.select(0.4, importance="l2", round_to=4, min_width=4))


def needs(environment: str) -> None:
    """Skip the test where the tools are not."""
    try:
        find(environment)
    except UsageError as error:
        pytest.skip(f"{error.message} ({error.hint}; scripts/test makes one)")
