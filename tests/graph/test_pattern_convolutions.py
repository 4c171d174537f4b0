"""Convolution patterns: which indices go together, and that the smaller network computes what is left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.graph.capture import capture
from tests.graph.independent import check, frozen, indices, parts, units

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_conv_relu_conv() -> None:
    net = check(parts(lambda s, x: s.b(F.relu(s.a(x))), a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 4, 3)), X)
    assert units(net) == {"a": 6}
    assert indices(net, "a", "b.weight", 1) == [[i] for i in range(6)]


def test_depthwise() -> None:
    model = parts(
        lambda s, x: s.c(s.n(s.b(s.a(x)))),
        a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 6, 3, groups=6), n=nn.BatchNorm2d(6), c=nn.Conv2d(6, 4, 1),
    )  # fmt: skip
    net = check(model, X)
    assert units(net) == {"a": 6}
    for name in ("a.weight", "b.weight", "b.bias", "n.running_var"):
        assert indices(net, "a", name, 0) == [[i] for i in range(6)]


def test_depthwise_with_multiplier_two() -> None:
    model = parts(
        lambda s, x: s.c(s.b(s.a(x))), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 8, 3, groups=4), c=nn.Conv2d(8, 5, 1)
    )
    net = check(model, X)
    assert indices(net, "a", "b.weight", 0) == indices(net, "a", "c.weight", 1) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def grouped() -> nn.Module:
    return parts(
        lambda s, x: s.c(F.relu(s.b(F.relu(s.a(x))))),
        a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 12, 3, groups=4), c=nn.Conv2d(12, 5, 1),
    )  # fmt: skip


def test_grouped_by_positions() -> None:
    net = check(grouped(), X)
    assert units(net) == {"a": 2, "b": 3}
    assert indices(net, "a", "a.weight", 0) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert indices(net, "a", "b.weight", 1) == [[0], [1]]
    assert indices(net, "b", "b.weight", 0) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_grouped_by_whole_groups() -> None:
    net = check(grouped(), X, grouped="groups")
    assert units(net) == {"a": 4}
    assert indices(net, "a", "a.weight", 0) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert indices(net, "a", "b.weight", 0) == indices(net, "a", "c.weight", 1)
    assert indices(net, "a", "c.weight", 1) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_whole_groups_through_group_norm() -> None:
    model = parts(
        lambda s, x: s.c(F.relu(s.n(s.b(s.a(x))))),
        a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 12, 3, groups=4), n=nn.GroupNorm(4, 12), c=nn.Conv2d(12, 5, 1),
    )  # fmt: skip
    net = check(model, X, grouped="groups")
    assert indices(net, "a", "n.weight", 0) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("grouped", ["positions", "groups"])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_transposed(groups: int, grouped: str) -> None:
    model = parts(
        lambda s, x: s.c(F.relu(s.b(s.a(x)))),
        a=nn.Conv2d(3, 8, 1),
        b=nn.ConvTranspose2d(8, 16, 3, stride=2, padding=1, output_padding=1, groups=groups),
        c=nn.Conv2d(16, 5, 1),
    )
    net = check(model, X, grouped=grouped)
    if groups == 1:
        assert indices(net, "a", "b.weight", 0) == [[i] for i in range(8)]
        assert indices(net, "b", "b.weight", 1) == [[i] for i in range(16)]
    elif groups == 8:
        assert indices(net, "a", "b.weight", 0) == [[i] for i in range(8)]
        assert indices(net, "a", "c.weight", 1) == [[2 * i, 2 * i + 1] for i in range(8)]
    elif grouped == "groups":
        assert indices(net, "a", "b.weight", 0) == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert indices(net, "a", "c.weight", 1) == [list(range(8)), list(range(8, 16))]
    else:
        assert indices(net, "a", "b.weight", 0) == [[i, i + 4] for i in range(4)]
        assert indices(net, "b", "b.weight", 1) == [[i] for i in range(8)]
        assert indices(net, "b", "b.bias", 0) == [[i, i + 8] for i in range(8)]


@pytest.mark.parametrize("kind", [1, 3])
def test_other_dimensions(kind: int) -> None:
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[kind]
    model = parts(lambda s, x: s.b(F.relu(s.a(x))), a=conv(3, 6, 1), b=conv(6, 4, 2))
    net = check(model, torch.randn(2, 3, *[4] * kind))
    assert indices(net, "a", "b.weight", 1) == [[i] for i in range(6)]


def test_squeeze_excite() -> None:
    def excited(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        return s.d(y * torch.sigmoid(s.c(F.relu(s.b(y.mean((2, 3), keepdim=True))))))

    model = parts(excited, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 4, 1), c=nn.Conv2d(4, 6, 1), d=nn.Conv2d(6, 3, 1))
    net = check(model, X)
    assert units(net) == {"a": 6, "b": 4}
    assert indices(net, "a", "c.weight", 0) == indices(net, "a", "b.weight", 1) == [[i] for i in range(6)]


def test_a_layer_used_twice() -> None:
    model = parts(
        lambda s, x: s.c(s.b(F.relu(s.b(s.a(x))))), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), c=nn.Conv2d(4, 3, 1)
    )
    net = check(model, X)
    assert indices(net, "a", "b.weight", 0) == indices(net, "a", "b.weight", 1) == [[i] for i in range(4)]


def test_gates_of_a_convolutional_lstm() -> None:
    def cell(s: nn.Module, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 4, 8, 8)
        for step in (x, 0.5 * x):
            i, f, o, g = s.gates(torch.cat([step, h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return s.head(h)

    net = check(parts(cell, gates=nn.Conv2d(7, 16, 3, padding=1), head=nn.Conv2d(4, 2, 1)), X)
    assert units(net) == {"gates": 4}
    assert indices(net, "gates", "gates.weight", 0) == [[i, i + 4, i + 8, i + 12] for i in range(4)]
    assert indices(net, "gates", "gates.weight", 1) == [[3 + i] for i in range(4)]


def test_gates_of_a_convolutional_lstm_whose_state_begins_like_a_tensor() -> None:
    def cell(s: nn.Module, x: Tensor) -> Tensor:
        h = s.first(x)
        c = torch.zeros_like(h)
        i, f, o, g = torch.split(s.gates(torch.cat([x, h], 1)), h.shape[1], dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return s.head(torch.sigmoid(o) * torch.tanh(c) + h)

    model = parts(cell, first=nn.Conv2d(3, 4, 1), gates=nn.Conv2d(7, 16, 3, padding=1), head=nn.Conv2d(4, 2, 1))
    net = check(model, X)
    assert units(net) == {"first": 4}
    assert indices(net, "first", "gates.weight", 0) == [[i, i + 4, i + 8, i + 12] for i in range(4)]
    assert indices(net, "first", "gates.weight", 1) == [[3 + i] for i in range(4)]


def test_max_and_average_pooling_and_resizing() -> None:
    def pooled(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        y = F.max_pool2d(y, 2) + F.avg_pool2d(y, 2) + F.adaptive_avg_pool2d(y, 4)
        up = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        return s.b(up + F.interpolate(y, size=(8, 8), mode="nearest"))

    net = check(parts(pooled, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 4, 1)), X)
    assert units(net) == {"a": 6}


def test_grid_sample() -> None:
    def sampled(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        grid = torch.tanh(s.g(x)).permute(0, 2, 3, 1)
        return s.b(F.grid_sample(y, grid, align_corners=False))

    net = check(parts(sampled, a=nn.Conv2d(3, 6, 1), g=nn.Conv2d(3, 2, 1), b=nn.Conv2d(6, 4, 1)), X)
    assert units(net) == {"a": 6}


def test_depthwise_over_a_grouped_neighbour() -> None:
    """The multiplier of one layer meets the groups of the next."""
    model = parts(
        lambda s, x: s.c(F.relu(s.d(F.relu(s.b(s.a(x)))))),
        a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 8, 3, groups=4), d=nn.Conv2d(8, 6, 1, groups=2), c=nn.Conv2d(6, 5, 1),
    )  # fmt: skip
    net = check(model, X)
    assert indices(net, "a", "b.weight", 0) == [[0, 1, 4, 5], [2, 3, 6, 7]]


@pytest.mark.parametrize("kind", ["depthwise", "grouped", "transposed"])
def test_a_fixed_kernel_in_groups_freezes(kind: str) -> None:
    """A kernel that is repeated as often as there are channels cannot be repeated less often."""

    def forward(s: nn.Module, x: Tensor) -> Tensor:
        if kind == "depthwise":
            return s.b(F.conv2d(s.a(x), s.k.repeat(6, 1, 1, 1), groups=6))
        if kind == "grouped":
            return s.b(F.conv2d(s.a(x), s.k.repeat(6, 3, 1, 1), groups=2))
        return s.b(F.conv_transpose2d(s.a(x), s.k.repeat(6, 3, 1, 1), groups=2))

    model = parts(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 3, 1), k=torch.randn(1, 1, 3, 3))
    for grouped in ("positions", "groups"):
        net = capture(model, (X,), grouped=grouped)
        assert "a" not in units(net)
        assert "in the model itself convolves" in frozen(net, "a")
        net.prune(net.uniform(0.5))


def test_an_expanded_kernel_is_expanded_less() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        return s.b(F.conv2d(y, s.k.expand(y.shape[1], 1, 3, 3), groups=y.shape[1]))

    model = parts(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 3, 1), k=torch.randn(1, 1, 3, 3))
    assert units(check(model, X)) == {"a": 6}
