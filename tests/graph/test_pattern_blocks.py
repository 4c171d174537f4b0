"""Blocks as people write them, in which several patterns meet: their units, and that the smaller network is right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.independent import check, indices, parts, units, zeroed

GENERATOR = torch.Generator().manual_seed(1)
IMAGE = torch.randn(2, 3, 8, 8, generator=GENERATOR)
TOKENS = torch.randn(2, 5, 7, generator=GENERATOR)
ROW = torch.randn(2, 7, generator=GENERATOR)
BOTH = zeroed("consumer", "producer")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_shifted_windows() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = torch.roll(s.a(x).permute(0, 2, 3, 1), (-1, -1), (1, 2))
        b, h, w, c = y.shape
        y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = s.qkv(y).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 16, 8)
        y = y.view(b, 2, 2, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(b, 8, 8, 8)
        return s.o(torch.roll(y, (1, 1), (1, 2)))

    net = check(parts(forward, a=nn.Conv2d(3, 6, 1), qkv=nn.Linear(6, 24), o=nn.Linear(8, 3)), IMAGE)
    assert units(net) == {"a": 6, "qkv": 2}
    assert indices(net, "qkv", "o.weight", 1) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_channels_shifted_in_time() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x.flatten(0, 1)).view(x.shape[0], 4, 6, 3, 3)
        shifted = torch.zeros_like(y)
        shifted[:, :-1, :2] = y[:, 1:, :2]
        shifted[:, 1:, 2:4] = y[:, :-1, 2:4]
        shifted[:, :, 4:] = y[:, :, 4:]
        return s.b(shifted.flatten(0, 1))

    net = check(parts(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 3, 1)), torch.randn(2, 4, 3, 3, 3))
    assert indices(net, "a", "b.weight", 1) == [[i] for i in range(6)]


def test_selective_kernels() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        u = torch.stack([s.a(x), s.b(x)], 1)
        w = s.f(u.sum(1).mean((2, 3))).view(-1, 2, 6).softmax(1)
        return s.c((u * w[..., None, None]).sum(1))

    model = parts(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 6, 1), f=nn.Linear(6, 12), c=nn.Conv2d(6, 3, 1))
    net = check(model, IMAGE)
    assert units(net) == {"a": 6}
    assert indices(net, "a", "f.weight", 0) == [[i, i + 6] for i in range(6)]


def test_split_attention() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = F.relu(s.a(x)).view(x.shape[0], 2, 6, 8, 8)
        w = s.f(y.sum(1).mean((2, 3), keepdim=True)).view(-1, 2, 6).softmax(1)
        return s.c((y * w.view(-1, 2, 6, 1, 1)).sum(1))

    net = check(parts(forward, a=nn.Conv2d(3, 12, 1), f=nn.Conv2d(6, 12, 1), c=nn.Conv2d(6, 3, 1)), IMAGE)
    assert indices(net, "a", "a.weight", 0) == indices(net, "a", "f.weight", 0) == [[i, i + 6] for i in range(6)]


def test_coordinate_attention() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        rows, columns = y.mean(3, keepdim=True), y.mean(2, keepdim=True).permute(0, 1, 3, 2)
        rows, columns = F.hardswish(s.f(torch.cat([rows, columns], 2))).split([8, 8], 2)
        return s.c(y * s.g(rows).sigmoid() * s.g(columns.permute(0, 1, 3, 2)).sigmoid())

    model = parts(forward, a=nn.Conv2d(3, 6, 1), f=nn.Conv2d(6, 4, 1), g=nn.Conv2d(4, 6, 1), c=nn.Conv2d(6, 3, 1))
    assert units(check(model, IMAGE)) == {"a": 6, "f": 4}


def test_scale_and_shift_from_a_condition() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        scale, shift = s.f(x.mean((2, 3))).chunk(2, 1)
        return s.c(s.a(x) * (1 + scale[..., None, None]) + shift[:, :, None, None])

    net = check(parts(forward, a=nn.Conv2d(3, 6, 1), f=nn.Linear(3, 12), c=nn.Conv2d(6, 3, 1)), IMAGE)
    assert indices(net, "a", "f.weight", 0) == [[i, i + 6] for i in range(6)]


def test_mixture_of_experts() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        w = s.r(x).softmax(-1)
        h = F.relu(torch.einsum("bd,edh->beh", x, s.first))
        return torch.einsum("beo,be->bo", torch.einsum("beh,eho->beo", h, s.second), w)

    first, second = nn.Parameter(torch.randn(4, 7, 6)), nn.Parameter(torch.randn(4, 6, 3))
    net = check(parts(forward, r=nn.Linear(7, 4), first=first, second=second), ROW)
    assert units(net) == {"first": 6}
    assert indices(net, "first", "second", 1) == [[i] for i in range(6)]


def test_non_local_block() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        t, p = (layer(y).view(x.shape[0], 4, -1) for layer in (s.t, s.p))
        g = s.g(y).view(x.shape[0], 4, -1).permute(0, 2, 1)
        z = ((t.permute(0, 2, 1) @ p).softmax(-1) @ g).permute(0, 2, 1).contiguous().view(x.shape[0], 4, 8, 8)
        return s.c(y + s.w(z))

    model = parts(
        forward, a=nn.Conv2d(3, 6, 1), t=nn.Conv2d(6, 4, 1), p=nn.Conv2d(6, 4, 1), g=nn.Conv2d(6, 4, 1),
        w=nn.Conv2d(4, 6, 1), c=nn.Conv2d(6, 3, 1),
    )  # fmt: skip
    net = check(model, IMAGE, reference=BOTH)
    assert units(net) == {"a": 6, "t": 4, "g": 4}
    assert indices(net, "t", "p.weight", 0) == indices(net, "g", "w.weight", 1) == [[i] for i in range(4)]


def test_selective_state_space() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        u, z = s.inner(x).chunk(2, -1)
        u = F.silu(s.conv(u.mT)[..., :5].mT)
        step, b, c = s.project(u).split([2, 3, 3], -1)
        step, decay = F.softplus(s.step(step)), -torch.exp(s.decay)
        h, outputs = torch.zeros(x.shape[0], 6, 3), []
        for t in range(5):
            h = torch.exp(step[:, t, :, None] * decay) * h + step[:, t, :, None] * b[:, t, None] * u[:, t, :, None]
            outputs.append((h * c[:, t, None]).sum(-1))
        return s.out((torch.stack(outputs, 1) + u * s.skip) * F.silu(z))

    model = parts(
        forward, inner=nn.Linear(7, 12), conv=nn.Conv1d(6, 6, 4, groups=6, padding=3), project=nn.Linear(6, 8),
        step=nn.Linear(2, 6), decay=nn.Parameter(torch.rand(6, 3)), skip=nn.Parameter(torch.rand(6)),
        out=nn.Linear(6, 3),
    )  # fmt: skip
    net = check(model, TOKENS, reference=BOTH)
    assert units(net) == {"inner": 6, "project": 3, "project:2": 2}
    assert indices(net, "inner", "inner.weight", 0) == [[i, i + 6] for i in range(6)]
    assert indices(net, "project", "project.weight", 0) == [[2 + i, 5 + i] for i in range(3)]


def test_hierarchical_residuals() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        first, second, third = s.a(x).chunk(3, 1)
        second = s.b(second)
        return s.d(torch.cat([first, second, s.c(third + second)], 1))

    model = parts(
        forward, a=nn.Conv2d(3, 12, 1), b=nn.Conv2d(4, 4, 3, padding=1), c=nn.Conv2d(4, 4, 3, padding=1),
        d=nn.Conv2d(12, 3, 1),
    )  # fmt: skip
    net = check(model, IMAGE)
    assert units(net) == {"a": 4, "a:2": 4, "a:3": 4, "c": 4}
    assert indices(net, "a:3", "a.weight", 0) == [[8 + i] for i in range(4)]
    assert indices(net, "a:3", "b.weight", 0) == [[i] for i in range(4)]
    assert indices(net, "a:3", "d.weight", 1) == [[4 + i] for i in range(4)]
