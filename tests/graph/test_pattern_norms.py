"""Normalisations and reductions: what mixes the prunable axis is computed over what is kept, and only that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from tests.graph.independent import Removed, check, frozen, group_of, indices, parts, units

GENERATOR = torch.Generator().manual_seed(1)
IMAGE = torch.randn(2, 3, 4, 4, generator=GENERATOR)
ROW = torch.randn(2, 7, generator=GENERATOR)
SINGLE = [[i] for i in range(6)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def over_kept(run: Callable[..., Tensor], group: str = "a", width: int = 6) -> Callable[..., Any]:
    """A reference by hand: `run(model, x, kept)` computes with the kept channels of a layer alone."""

    def reference(model: nn.Module, net: Captured, removed: Removed) -> Callable[..., Tensor]:
        member = next(m for m in group_of(net, group).members if m.parameter == f"{group}.weight" and m.dim == 0)
        gone = member.indices[list(removed.get(group, []))].ravel().tolist()
        kept = [i for i in range(width) if i not in gone]
        return lambda x: run(model, x, kept)

    return reference


def head(s: nn.Module, y: Tensor, kept: list[int]) -> Tensor:
    """The last layer, of what is kept."""
    if isinstance(s.b, nn.Linear):
        return F.linear(y, s.b.weight[:, kept], s.b.bias)
    return F.conv2d(y, s.b.weight[:, kept], s.b.bias)


def rms(y: Tensor) -> Tensor:
    return y * torch.rsqrt(y.pow(2).mean(1, keepdim=True) + 1e-6)


def variance(y: Tensor) -> Tensor:
    mean = y.mean(1, keepdim=True)
    return (y - mean) / torch.sqrt((y - mean).pow(2).mean(1, keepdim=True) + 1e-6)


OVER_CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda y: y * y.mean(1, keepdim=True),
    "mean without dimension kept": lambda y: y * y.mean(1).unsqueeze(1),
    "amax": lambda y: y * torch.sigmoid(y.amax(1, keepdim=True)),
    "max": lambda y: y * y.max(1, keepdim=True)[0],
    "spatial attention": lambda y: y * torch.sigmoid(
        torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1).sum(1, keepdim=True)
    ),
    "rms norm by hand": rms,
    "layer norm by hand": variance,
    "var": lambda y: (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt(),
    "std": lambda y: y / (y.std(1, keepdim=True) + 0.1),
    "normalize": lambda y: F.normalize(y, dim=1),
    "normalize by 1": lambda y: F.normalize(y, p=1.0, dim=1),
    "norm": lambda y: y / (1 + torch.linalg.vector_norm(y, dim=1, keepdim=True)),
    "global response": lambda y: y * (
        (g := y.norm(p=2, dim=(2, 3), keepdim=True)) / (g.mean(dim=1, keepdim=True) + 1e-6)
    ) + y,
    "logsumexp": lambda y: y - y.logsumexp(1, keepdim=True),
    "sum": lambda y: y + 0.1 * y.sum(1, keepdim=True),
    "layer norm of channels first": lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (y.shape[1],)).permute(0, 3, 1, 2),
    "one group": lambda y: F.group_norm(y, 1),
    "instance norm": F.instance_norm,
    "softmax over the pixels": lambda y: y.flatten(2).softmax(-1).view_as(y),
    "sorted pixels": lambda y: y.flatten(2).sort(-1)[0].view_as(y),
    "largest pixels": lambda y: y * y.flatten(2).topk(3, -1)[0].mean(-1)[..., None, None],
    "first of the largest": lambda y: y * y.flatten(2).max(-1).values[..., None, None],
    "running sum along a row": lambda y: y.cumsum(-1),
}  # fmt: skip


@pytest.mark.parametrize("name", OVER_CHANNELS)
def test_over_the_kept_channels(name: str) -> None:
    function = OVER_CHANNELS[name]
    model = parts(lambda s, x: s.b(function(s.a(x))), a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 3, 1))
    reference = over_kept(lambda s, x, kept: head(s, function(s.a(x)[:, kept]), kept))
    net = check(model, IMAGE, reference=reference)
    assert units(net) == {"a": 6}
    assert indices(net, "a", "b.weight", 1) == SINGLE


def test_layer_norm_of_channels_first_with_parameters() -> None:
    model = parts(
        lambda s, x: s.b(s.n(s.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        a=nn.Conv2d(3, 6, 1), n=nn.LayerNorm(6), b=nn.Conv2d(6, 3, 1),
    )  # fmt: skip

    def by_hand(s: nn.Module, x: Tensor, kept: list[int]) -> Tensor:
        y = s.a(x)[:, kept].permute(0, 2, 3, 1)
        y = F.layer_norm(y, (len(kept),), s.n.weight[kept], s.n.bias[kept])
        return head(s, y.permute(0, 3, 1, 2), kept)

    net = check(model, IMAGE, reference=over_kept(by_hand))
    assert indices(net, "a", "n.weight", 0) == SINGLE


@pytest.mark.parametrize(
    "norm", [nn.RMSNorm(6), nn.LayerNorm(6, bias=False), nn.LayerNorm(6, elementwise_affine=False)]
)
def test_norms_of_rows(norm: nn.Module) -> None:
    model = parts(lambda s, x: s.b(s.n(s.a(x))), a=nn.Linear(7, 6), n=norm, b=nn.Linear(6, 3))
    function = F.rms_norm if isinstance(norm, nn.RMSNorm) else F.layer_norm

    def by_hand(s: nn.Module, x: Tensor, kept: list[int]) -> Tensor:
        weight = None if s.n.weight is None else s.n.weight[kept]
        return head(s, function(s.a(x)[:, kept], (len(kept),), weight, eps=s.n.eps), kept)

    assert units(check(model, ROW, reference=over_kept(by_hand))) == {"a": 6}


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm_by_positions(groups: int) -> None:
    model = parts(lambda s, x: s.b(s.n(s.a(x))), a=nn.Conv2d(3, 6, 1), n=nn.GroupNorm(groups, 6), b=nn.Conv2d(6, 3, 1))

    def by_hand(s: nn.Module, x: Tensor, kept: list[int]) -> Tensor:
        y = F.group_norm(s.a(x)[:, kept], len(kept) if groups == 6 else groups, s.n.weight[kept], s.n.bias[kept])
        return head(s, y, kept)

    net = check(model, IMAGE, reference=over_kept(by_hand))
    each = 6 // groups
    expected = SINGLE if groups in {1, 6} else [[g * each + i for g in range(groups)] for i in range(each)]
    assert indices(net, "a", "a.weight", 0) == indices(net, "a", "n.bias", 0) == expected


@pytest.mark.parametrize("groups", [2, 3])
def test_group_norm_by_whole_groups(groups: int) -> None:
    model = parts(lambda s, x: s.b(s.n(s.a(x))), a=nn.Conv2d(3, 6, 1), n=nn.GroupNorm(groups, 6), b=nn.Conv2d(6, 3, 1))
    net = check(model, IMAGE, grouped="groups")
    each = 6 // groups
    assert indices(net, "a", "b.weight", 1) == [[g * each + i for i in range(each)] for g in range(groups)]


@pytest.mark.parametrize("tracked", [False, True])
def test_instance_norm(tracked: bool) -> None:
    model = parts(
        lambda s, x: s.b(s.n(s.a(x))),
        a=nn.Conv2d(3, 6, 1), n=nn.InstanceNorm2d(6, affine=True, track_running_stats=tracked), b=nn.Conv2d(6, 3, 1),
    )  # fmt: skip
    net = check(model, IMAGE)
    assert indices(net, "a", "n.weight", 0) == SINGLE
    if tracked:
        assert indices(net, "a", "n.running_var", 0) == SINGLE


def test_batch_norm_before_the_convolution() -> None:
    model = parts(
        lambda s, x: s.b(F.relu(s.n(torch.cat([s.a(x), s.c(x)], 1)))),
        a=nn.Conv2d(3, 2, 1), c=nn.Conv2d(3, 4, 1), n=nn.BatchNorm2d(6), b=nn.Conv2d(6, 3, 1),
    )  # fmt: skip
    net = check(model, IMAGE)
    assert indices(net, "a", "n.running_mean", 0) == [[0], [1]]
    assert indices(net, "c", "n.running_mean", 0) == [[2], [3], [4], [5]]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("normed", "direction"),
    [(weight_norm, "weight_v"), (parametrizations.weight_norm, "parametrizations.weight.original1")],
)
def test_weight_norm(normed: Callable[..., nn.Module], direction: str) -> None:
    """The norm of a direction is over its kept part: zeroing the direction is the reference."""
    model = parts(lambda s, x: s.b(F.relu(s.a(x))), a=normed(nn.Conv2d(3, 6, 1)), b=normed(nn.Conv2d(6, 3, 1)))
    net = check(model, IMAGE)
    (group,) = net.groups
    assert group.units == 6
    assert indices(net, group.name, f"a.{direction}", 0) == indices(net, group.name, f"b.{direction}", 1) == SINGLE


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_per_input() -> None:
    """The norm of the first layer's columns is over the rows that are kept."""
    model = parts(
        lambda s, x: s.b(F.relu(s.a(x))),
        a=weight_norm(nn.Linear(7, 6), dim=1), b=weight_norm(nn.Linear(6, 3), dim=1),
    )  # fmt: skip

    def by_hand(s: nn.Module, x: Tensor, kept: list[int]) -> Tensor:
        v, w = s.a.weight_v[kept], s.b.weight_v[:, kept]
        y = F.relu(F.linear(x, v * s.a.weight_g / v.norm(dim=0), s.a.bias[kept]))
        return F.linear(y, w * s.b.weight_g[:, kept] / w.norm(dim=0), s.b.bias)

    def reference(model: nn.Module, net: Captured, removed: Removed) -> Callable[..., Tensor]:
        kept = [i for i in range(6) if i not in removed["a"]]
        return lambda x: by_hand(model, x, kept)

    net = check(model, ROW, reference=reference)
    assert indices(net, "a", "b.weight_g", 1) == SINGLE


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("normed", "weight"),
    [(spectral_norm, "weight_orig"), (parametrizations.spectral_norm, "parametrizations.weight.original")],
)
def test_spectral_norm_is_frozen_and_named(normed: Callable[..., nn.Module], weight: str) -> None:
    """The norm is of the whole matrix, by way of vectors that belong to its full size."""
    model = parts(
        lambda s, x: s.c(F.relu(s.b(F.relu(s.a(x))))),
        a=nn.Linear(7, 5), b=normed(nn.Linear(5, 6)), c=nn.Linear(6, 3),
    )  # fmt: skip
    net = capture(model, (ROW,))
    assert net.groups == ()
    reasons = {group.name: group.frozen or "" for group in net.frozen}
    assert "estimates a norm of the whole weight" in reasons["a"]
    assert "estimates a norm of the whole weight" in reasons[f"b.{weight}"]


def test_standardised_weight() -> None:
    """A weight normalised by batch-norm on a view of it, before it convolves."""

    class Standardised(nn.Conv2d):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            weight = F.batch_norm(
                self.weight.reshape(1, self.out_channels, -1), None, None,
                weight=(self.gain * 0.7).view(-1), training=True, momentum=0.0, eps=1e-6,
            ).reshape_as(self.weight)  # fmt: skip
            return F.conv2d(x, weight, self.bias)

    model = parts(lambda s, x: s.b(F.relu(s.a(x))), a=Standardised(3, 6, 3), b=Standardised(6, 4, 1))

    def by_hand(s: nn.Module, x: Tensor, kept: list[int]) -> Tensor:
        small = s.b.weight[:, kept]
        flat = small.reshape(4, -1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        return F.conv2d(F.relu(s.a(x)[:, kept]), flat.view_as(small) * s.b.gain * 0.7, s.b.bias)

    net = check(model, IMAGE, reference=over_kept(by_hand))
    assert units(net) == {"a": 6}
    assert indices(net, "a", "a.gain", 0) == indices(net, "a", "b.weight", 1) == SINGLE
    assert frozen(net, "b") == "is the model's output"


def test_standardised_weight_by_hand() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        w = s.b.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(F.relu(s.a(x)), w, s.b.bias)

    model = parts(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 4, 3))

    def by_hand(s: nn.Module, x: Tensor, kept: list[int]) -> Tensor:
        w = s.b.weight[:, kept]
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(F.relu(s.a(x))[:, kept], w, s.b.bias)

    net = check(model, IMAGE, reference=over_kept(by_hand))
    assert units(net) == {"a": 6}


FREEZING: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "softmax": (lambda y: y.softmax(1), "softmax in the model itself normalises over it"),
    "cumsum": (lambda y: y.cumsum(1), "cumsum in the model itself normalises over it"),
    "sort": (lambda y: y.sort(1)[0], "sort in the model itself ranks along it"),
    "topk": (lambda y: y.topk(6, 1)[0], "topk in the model itself ranks along it"),
    "argmax": (lambda y: y * y.argmax(1, keepdim=True), "argmax in the model itself returns positions in it"),
    "local response": (
        lambda y: F.local_response_norm(y[..., None], 3)[..., 0],
        "avg_pool2d in the model itself slides over it",
    ),
}


@pytest.mark.parametrize("name", FREEZING)
def test_what_gives_positions_a_meaning_freezes(name: str) -> None:
    function, reason = FREEZING[name]
    net = capture(parts(lambda s, x: s.b(function(s.a(x))), a=nn.Linear(7, 6), b=nn.Linear(6, 3)), (ROW,))
    assert net.groups == ()
    assert frozen(net, "a") == reason
