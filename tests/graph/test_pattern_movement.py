"""Data movement: which indices go together, and that the smaller network computes what is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.graph.capture import capture
from tests.graph.independent import check, frozen, indices, parts, units, zeroed

GENERATOR = torch.Generator().manual_seed(1)
IMAGE = torch.randn(2, 3, 4, 4, generator=GENERATOR)
ROW = torch.randn(2, 7, generator=GENERATOR)
TOKENS = torch.randn(2, 5, 7, generator=GENERATOR)
SINGLE = [[i] for i in range(6)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def between(move: Callable[[Tensor], Tensor], out: int = 6, width: int = 6) -> nn.Module:
    """A movement between a linear layer of 6 units and one of `width` inputs."""
    return parts(lambda s, x: s.b(move(F.gelu(s.a(x)))), a=nn.Linear(7, out), b=nn.Linear(width, 3))


def convolved(move: Callable[[Tensor], Tensor], out: int = 6, width: int = 6) -> nn.Module:
    return parts(lambda s, x: s.b(move(F.gelu(s.a(x)))), a=nn.Conv2d(3, out, 1), b=nn.Conv2d(width, 3, 1))


ONE_TO_ONE: dict[str, tuple[Callable[[Tensor], Tensor], list[list[int]]]] = {
    "identity": (lambda y: y, SINGLE),
    "cat with itself": (lambda y: torch.cat([y, y], 1), [[i, i + 6] for i in range(6)]),
    "flip": (lambda y: y.flip(1), [[5 - i] for i in range(6)]),
    "flip of the pixels": (lambda y: y.flip(-1), SINGLE),
    "roll": (lambda y: y.roll(2, 1), [[(i + 2) % 6] for i in range(6)]),
    "roll back": (lambda y: torch.roll(y, -7, 1), [[(i - 7) % 6] for i in range(6)]),
    "roll of the pixels": (lambda y: torch.roll(y, (1, 2), (2, 3)), SINGLE),
    "roll of both": (lambda y: torch.roll(y, (1, 2), (1, 3)), [[(i + 1) % 6] for i in range(6)]),
    "repeat": (lambda y: y.repeat(1, 2, 1, 1), [[i, i + 6] for i in range(6)]),
    "repeat_interleave": (lambda y: y.repeat_interleave(2, 1), [[2 * i, 2 * i + 1] for i in range(6)]),
    "list": (lambda y: y[:, [3, 1, 5, 0, 2, 4]], [[3], [1], [4], [0], [5], [2]]),
    "negative list": (lambda y: y[:, [-1, -2, -3, -4, -5, -6]], [[5 - i] for i in range(6)]),
    "channels last and back": (lambda y: y.permute(0, 2, 3, 1).permute(0, 3, 1, 2), SINGLE),
    "view of pixels": (lambda y: y.view(y.shape[0], 6, 16).view(y.shape[0], -1, 4, 4), SINGLE),
    "literal view": (lambda y: y.reshape(-1, 6, 2, 8).reshape(y.shape[0], 6, 4, 4), SINGLE),
    "pixels unfolded": (lambda y: y.unfold(2, 2, 1).sum(-1), SINGLE),
    "stack and sum": (lambda y: torch.stack([y, y * y], 0).sum(0), SINGLE),
    "stack beside": (lambda y: torch.stack([y, 2 * y], 2).flatten(1, 2), [[2 * i, 2 * i + 1] for i in range(6)]),
    "stack before": (lambda y: torch.stack([y, 2 * y], 1).flatten(1, 2), [[i, i + 6] for i in range(6)]),
    "movedim": (lambda y: y.movedim(1, -1).transpose(-1, 1).transpose(2, 3).mT, SINGLE),
    "chunk and cat": (lambda y: torch.cat(y.chunk(2, 1)[::-1], 1), [[3], [4], [5], [0], [1], [2]]),
    "unbind and stack": (lambda y: torch.stack(y.unbind(2), 2), SINGLE),
    "narrow": (lambda y: torch.cat([y.narrow(1, 3, 3), y.narrow(1, 0, 3)], 1), [[3], [4], [5], [0], [1], [2]]),
    "view_as": (lambda y: y.flatten(1).view_as(y), SINGLE),
    "reshape_as": (lambda y: y.flatten(2).reshape_as(y), SINGLE),
    "expand_as": (lambda y: y.mean((2, 3), keepdim=True).expand_as(y) + y, SINGLE),
    "squeeze and unsqueeze": (lambda y: y.unsqueeze(2).squeeze(2), SINGLE),
    "index_select": (lambda y: y.index_select(1, torch.tensor([5, 4, 3, 2, 1, 0])), [[5 - i] for i in range(6)]),
    "the even, then the odd": (lambda y: torch.cat([y[:, ::2], y[:, 1::2]], 1), [[0], [3], [1], [4], [2], [5]]),
    "literal slices": (lambda y: torch.cat([y[:, 4:], y[:, 2:-2], y[:, :2]], 1), [[4], [5], [2], [3], [0], [1]]),
    "uneven split": (lambda y: torch.cat(y.split([4, 2], 1)[::-1], 1), [[2], [3], [4], [5], [0], [1]]),
    "ellipsis": (lambda y: y[..., None, :, :].flatten(1, 2), SINGLE),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_TO_ONE)
def test_each_channel_goes_on_its_own(name: str) -> None:
    move, expected = ONE_TO_ONE[name]
    net = check(convolved(move, width=sum(map(len, expected))), IMAGE)
    assert units(net) == {"a": 6}
    assert indices(net, "a", "a.weight", 0) == SINGLE
    assert indices(net, "a", "b.weight", 1) == expected


TIED: dict[str, tuple[Callable[[Tensor], Tensor], int, list[list[int]], list[list[int]]]] = {
    "glu": (lambda y: F.glu(y, 1), 3, [[0, 3], [1, 4], [2, 5]], [[0], [1], [2]]),
    "module glu": (nn.GLU(1), 3, [[0, 3], [1, 4], [2, 5]], [[0], [1], [2]]),
    "gate by chunk": (
        lambda y: y.chunk(2, 1)[0] * torch.sigmoid(y.chunk(2, 1)[1]), 3, [[0, 3], [1, 4], [2, 5]], [[0], [1], [2]],
    ),
    "simple gate of neighbours": (lambda y: y[:, ::2] * y[:, 1::2], 3, [[0, 1], [2, 3], [4, 5]], [[0], [1], [2]]),
    "shuffle by view": (
        lambda y: y.view(y.shape[0], 2, 3, 4, 4).transpose(1, 2).reshape(y.shape[0], -1, 4, 4),
        6, [[0, 3], [1, 4], [2, 5]], [[0, 1], [2, 3], [4, 5]],
    ),
    "shuffle by literal view": (
        lambda y: y.view(-1, 2, 3, 4, 4).transpose(1, 2).contiguous().view(-1, 6, 4, 4),
        6, [[0, 3], [1, 4], [2, 5]], [[0, 1], [2, 3], [4, 5]],
    ),
    "channel_shuffle": (nn.ChannelShuffle(2), 6, [[0, 3], [1, 4], [2, 5]], [[0, 1], [2, 3], [4, 5]]),
    "maxout": (lambda y: y.view(y.shape[0], 3, 2, 4, 4).amax(2), 3, [[0, 1], [2, 3], [4, 5]], [[0], [1], [2]]),
    "split in two by unflatten": (
        lambda y: y.unflatten(1, (2, 3)).relu().flatten(1, 2), 6, [[0, 3], [1, 4], [2, 5]], [[0, 3], [1, 4], [2, 5]],
    ),
    "sum with the flipped": (lambda y: y + y.flip(1), 6, [[0, 5], [1, 4], [2, 3]], [[0, 5], [1, 4], [2, 3]]),
}  # fmt: skip


@pytest.mark.parametrize("name", TIED)
def test_channels_that_only_go_together(name: str) -> None:
    move, width, produced, consumed = TIED[name]
    net = check(convolved(move, width=width), IMAGE)
    assert indices(net, "a", "a.weight", 0) == produced
    assert indices(net, "a", "b.weight", 1) == consumed


def test_pixel_shuffle() -> None:
    model = parts(lambda s, x: s.b(F.pixel_shuffle(s.a(x), 2)), a=nn.Conv2d(3, 12, 1), b=nn.Conv2d(3, 4, 1))
    net = check(model, IMAGE)
    assert indices(net, "a", "a.weight", 0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert indices(net, "a", "b.weight", 1) == [[0], [1], [2]]


def test_pixel_unshuffle() -> None:
    model = parts(lambda s, x: s.b(F.pixel_unshuffle(s.a(x), 2)), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(12, 4, 1))
    net = check(model, IMAGE)
    assert indices(net, "a", "b.weight", 1) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_focus_by_strided_slices() -> None:
    def focus(y: Tensor) -> Tensor:
        return torch.cat([y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]], 1)

    net = check(convolved(focus, out=3, width=12), IMAGE)
    assert indices(net, "a", "b.weight", 1) == [[i, i + 3, i + 6, i + 9] for i in range(3)]


def test_flatten_of_channels_first() -> None:
    model = parts(lambda s, x: s.b(s.a(x).flatten(1)), a=nn.Conv2d(3, 5, 3), b=nn.Linear(20, 3))
    assert indices(check(model, IMAGE), "a", "b.weight", 1) == [[4 * c + p for p in range(4)] for c in range(5)]


def test_flatten_of_channels_last() -> None:
    model = parts(
        lambda s, x: s.b(s.a(x).permute(0, 2, 3, 1).reshape(-1, 20)), a=nn.Conv2d(3, 5, 3), b=nn.Linear(20, 3)
    )
    assert indices(check(model, IMAGE), "a", "b.weight", 1) == [[c + 5 * p for p in range(4)] for c in range(5)]


def test_flatten_after_concatenation() -> None:
    model = parts(
        lambda s, x: s.c(torch.cat([s.a(x), s.b(x)], 1).flatten(1)),
        a=nn.Conv2d(3, 2, 3), b=nn.Conv2d(3, 3, 3), c=nn.Linear(20, 3),
    )  # fmt: skip
    net = check(model, IMAGE)
    assert indices(net, "a", "c.weight", 1) == [[4 * c + p for p in range(4)] for c in range(2)]
    assert indices(net, "b", "c.weight", 1) == [[8 + 4 * c + p for p in range(4)] for c in range(3)]


def test_concatenation() -> None:
    model = parts(
        lambda s, x: s.c(torch.cat([s.a(x), x, s.b(x)], 1)),
        a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 5, 1), c=nn.Conv2d(12, 3, 1),
    )  # fmt: skip
    net = check(model, IMAGE)
    assert indices(net, "a", "c.weight", 1) == [[0], [1], [2], [3]]
    assert indices(net, "b", "c.weight", 1) == [[7], [8], [9], [10], [11]]


def test_index_by_a_buffer() -> None:
    model = parts(
        lambda s, x: s.b(F.relu(s.a(x))[:, s.order]),
        a=nn.Linear(7, 6), b=nn.Linear(6, 3), order=torch.tensor([2, 0, 5, 1, 4, 3]),
    )  # fmt: skip
    net = check(model, ROW)
    assert indices(net, "a", "b.weight", 1) == [[1], [3], [0], [5], [4], [2]]


def test_swiglu() -> None:
    model = parts(lambda s, x: s.c(F.silu(s.a(x)) * s.b(x)), a=nn.Linear(7, 6), b=nn.Linear(7, 6), c=nn.Linear(6, 3))
    net = check(model, TOKENS)
    assert units(net) == {"a": 6}
    assert indices(net, "a", "b.weight", 0) == indices(net, "a", "c.weight", 1) == SINGLE


def test_strided_slice_leaves_the_others_free() -> None:
    net = check(between(lambda y: y[:, ::2], width=3), ROW, reference=zeroed("consumer", "producer"))
    assert indices(net, "a", "b.weight", 1) == [[0], [1], [2]]
    assert indices(net, "a", "a.weight", 0) == [[0], [2], [4]]


def test_unfold_and_fold() -> None:
    model = parts(
        lambda s, x: s.b(s.u(s.a(x)).transpose(1, 2)).mean(1), a=nn.Conv2d(3, 3, 1), u=nn.Unfold(2), b=nn.Linear(12, 4)
    )
    net = check(model, IMAGE)
    assert indices(net, "a", "b.weight", 1) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]

    model = parts(
        lambda s, x: s.b(s.f(s.a(x).flatten(2))), a=nn.Conv2d(3, 12, 2), f=nn.Fold((4, 4), 2), b=nn.Conv2d(3, 4, 1)
    )
    net = check(model, IMAGE)
    assert indices(net, "a", "a.weight", 0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_in_place_forms() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        y.relu_()
        y.add_(s.b(x)).mul_(0.5)
        return s.c(y)

    net = check(parts(forward, a=nn.Linear(7, 6), b=nn.Linear(7, 6), c=nn.Linear(6, 3)), ROW)
    assert indices(net, "a", "b.weight", 0) == indices(net, "a", "c.weight", 1) == SINGLE


@pytest.mark.parametrize("operator", ["assign", "add"])
def test_writing_into_a_slice_of_the_channels(operator: str) -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x).clone()
        if operator == "add":
            y[:, 2:] += s.b(x)
        else:
            y[:, 2:] = s.b(x)
        return s.c(y)

    model = parts(forward, a=nn.Linear(7, 6), b=nn.Linear(7, 4), c=nn.Linear(6, 3))
    net = check(model, ROW)
    assert units(net) == {"a": 2, "a:2": 4}
    assert indices(net, "a", "c.weight", 1) == [[0], [1]]
    assert indices(net, "a:2", "b.weight", 0) == [[0], [1], [2], [3]]
    assert indices(net, "a:2", "c.weight", 1) == [[2], [3], [4], [5]]


def test_writing_a_number_into_channels() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        y[:, 2:4] = 0.5
        y.transpose(0, 1).mul_(2)
        return s.c(y)

    assert units(check(parts(forward, a=nn.Linear(7, 6), c=nn.Linear(6, 3)), ROW)) == {"a": 6}


def test_writing_into_every_other_channel_freezes() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        y[:, ::2].view(-1, 3).add_(1)
        return s.b(y)

    net = capture(parts(forward, a=nn.Linear(7, 6), b=nn.Linear(6, 3)), (ROW,))
    assert net.groups == ()
    assert frozen(net, "a") == "slice in the model itself writes into every other index of it"


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_padded_channels_are_units_of_their_own(value: float) -> None:
    net = check(convolved(lambda y: F.pad(y, (0, 0, 0, 0, 1, 2), value=value), width=9), IMAGE)
    assert units(net) == {"a": 6, "b": 3}
    assert indices(net, "a", "b.weight", 1) == [[i + 1] for i in range(6)]
    assert indices(net, "b", "b.weight", 1) == [[0], [7], [8]]


def test_a_list_with_repetition() -> None:
    net = check(between(lambda y: y[:, [3, 1, 1, 0, 2, 4, 5, 3]], width=8), ROW)
    assert indices(net, "a", "a.weight", 0) == [[0], [2], [4], [5]]
    assert indices(net, "a", "b.weight", 1) == [[3], [4], [5], [6]]
    assert indices(net, "a:2", "a.weight", 0) == [[1], [3]]
    assert indices(net, "a:2", "b.weight", 1) == [[1, 2], [0, 7]]


def test_overlapping_slices() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        return s.b(y[:, :4]) + s.c(y[:, 2:])

    net = check(parts(forward, a=nn.Linear(7, 6), b=nn.Linear(4, 3), c=nn.Linear(4, 3)), ROW)
    assert units(net) == {"a": 2, "a:2": 2, "a:3": 2}
    assert indices(net, "a:2", "c.weight", 1) == [[0], [1]]


def test_expand_of_one_channel() -> None:
    model = parts(
        lambda s, x: s.c(s.a(x) * s.b(x).expand(-1, 6, -1, -1)),
        a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 1, 1), c=nn.Conv2d(6, 3, 1),
    )  # fmt: skip
    net = check(model, IMAGE)
    assert units(net) == {"a": 6}


def test_an_axis_that_is_picked_by_its_index_is_frozen() -> None:
    model = parts(lambda s, x: s.b(s.a(x)) + s.a(x)[:, 2:3], a=nn.Linear(7, 6), b=nn.Linear(6, 3))
    net = check(model, ROW)
    assert indices(net, "a", "b.weight", 1) == [[0], [1], [3], [4], [5]]
    assert frozen(net, "a") == "slice in the model itself picks it out by its index"
