"""Constants, bare parameters, contractions by name, masks and regions: what goes together, and what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.graph.capture import capture
from edgeprune.graph.operators import operator_name
from tests.graph.independent import check, frozen, indices, parts, units, zeroed

GENERATOR = torch.Generator().manual_seed(1)
IMAGE = torch.randn(2, 3, 4, 4, generator=GENERATOR)
ROW = torch.randn(2, 7, generator=GENERATOR)
TOKENS = torch.randn(2, 5, 7, generator=GENERATOR)
SINGLE = [[i] for i in range(6)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


PRODUCTS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...], int, int]] = {
    # forward, shape of a, shape of b, dimension of a that produces, dimension of b that consumes
    "linear": (lambda s, x: F.linear(F.relu(F.linear(x, s.a)), s.b), (6, 7), (3, 6), 0, 1),
    "matmul": (lambda s, x: F.relu(x @ s.a) @ s.b, (7, 6), (6, 3), 1, 0),
    "matmul, transposed": (lambda s, x: F.relu(x @ s.a.t()) @ s.b.transpose(0, 1), (6, 7), (3, 6), 0, 1),
    "matmul, scaled": (lambda s, x: F.relu(x @ (s.a * 0.5)) @ (s.b / 3).contiguous(), (7, 6), (6, 3), 1, 0),
    "addmm": (lambda s, x: torch.addmm(s.c, F.relu(torch.mm(x[:, 0], s.a)), s.b), (7, 6), (6, 3), 1, 0),
    "einsum": (
        lambda s, x: torch.einsum("bti,oi->bto", torch.einsum("bti,io->bto", x, s.a), s.b), (7, 6), (3, 6), 1, 1,
    ),
    "einsum with ellipsis": (
        lambda s, x: torch.einsum("...i,oi->...o", torch.einsum("...i,io->...o", x, s.a), s.b), (7, 6), (3, 6), 1, 1,
    ),
    "einsum with implicit output": (
        lambda s, x: torch.einsum("bti,iz", torch.einsum("bti,iz", x, s.a), s.b), (7, 6), (6, 3), 1, 0,
    ),
    "einsum that moves": (
        lambda s, x: torch.einsum("ibt,oi->bto", torch.einsum("bti,io->obt", x, s.a), s.b), (7, 6), (3, 6), 1, 1,
    ),
    "einsum with a batch": (
        lambda s, x: torch.einsum("bti,tio->bto", torch.einsum("bti,tio->bto", x, s.a), s.b),
        (5, 7, 6), (5, 6, 3), 2, 1,
    ),
    "tensordot": (lambda s, x: torch.tensordot(torch.tensordot(x, s.a, 1), s.b, 1), (7, 6), (6, 3), 1, 0),
    "mv": (lambda s, x: torch.stack([torch.mv(s.b, torch.mv(s.a, x[0, 0]))]), (6, 7), (3, 6), 0, 1),
    "conv of a bare weight": (
        lambda s, x: F.conv1d(F.conv1d(x.mT, s.a), s.b), (6, 7, 2), (3, 6, 2), 0, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_bare_parameters(name: str) -> None:
    forward, a, b, out, into = PRODUCTS[name]
    net = check(parts(forward, a=weight(*a), b=weight(*b), c=weight(3)), TOKENS)
    assert units(net) == {"a": 6}
    assert indices(net, "a", "a", out) == indices(net, "a", "b", into) == SINGLE
    roles = {m.parameter: m.role for m in net.groups[0].members}
    assert roles == {"a": "producer", "b": "consumer"}


def test_a_diagonal_is_frozen() -> None:
    net = capture(parts(lambda s, x: torch.einsum("bii->bi", x @ s.a[None]), a=weight(7, 5)), (TOKENS,))
    assert net.groups == ()


def test_low_rank_update_of_a_weight() -> None:
    model = parts(
        lambda s, x: s.b(F.relu(F.linear(x, s.w + s.up @ s.down))),
        w=weight(6, 7), up=weight(6, 4), down=weight(4, 7), b=nn.Linear(6, 3),
    )  # fmt: skip
    net = check(model, ROW)
    by_size = {group.units: group for group in net.groups}
    assert sorted(by_size) == [4, 6]
    assert {(m.parameter, m.dim) for m in by_size[4].members} == {("up", 1), ("down", 0)}
    assert {(m.parameter, m.dim) for m in by_size[6].members} == {("w", 0), ("up", 0), ("b.weight", 1)}


def test_embedding_tied_to_the_output() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.inner = nn.Embedding(9, 6), nn.Linear(6, 6)
            self.out = nn.Linear(6, 9, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            y = self.embed(x)
            return self.out(y + torch.tanh(self.inner(y)))

    net = check(Tied(), torch.randint(0, 9, (2, 5)), reference=zeroed("consumer", "producer"))
    assert units(net) == {"inner": 6}
    assert indices(net, "inner", "inner.weight", 0) == SINGLE
    assert {m.parameter for m in net.groups[0].members} >= {"out.weight", "inner.weight", "inner.bias"}
    assert net.prune(net.candidate({"inner": [0, 1, 2]})).cost().params == 9 * 3 + 3 * 3 + 3


def test_tied_transposed_decoder() -> None:
    model = parts(lambda s, x: F.linear(F.relu(s.a(x)), s.a.weight.t()), a=nn.Linear(7, 6))
    net = check(model, ROW, reference=zeroed("producer"))
    assert indices(net, "a", "a.weight", 0) == SINGLE


CONSTANTS: dict[str, Callable[..., Tensor]] = {
    "scalar parameter": lambda s, y: y * s.scalar + s.scalar,
    "number": lambda s, y: 2 * y + 1 - (y / 3) ** 2,
    "buffer of one": lambda s, y: y * s.single,
    "buffer of the pixels": lambda s, y: y + s.pixels,
    "zeros of the batch": lambda s, y: y + torch.zeros(y.shape[0], 6, 4, 4),
    "full of literal sizes": lambda s, y: y * torch.full((6, 1, 1), 0.5),
    "new_full": lambda s, y: y + y.new_full((1, 6, 1, 1), 0.5),
    "zeros_like": lambda s, y: y + torch.zeros_like(y) + torch.ones_like(y),
    "empty, filled": lambda s, y: y + torch.empty_like(y).fill_(0.3),
    "addcmul": lambda s, y: torch.addcmul(y, y, torch.sigmoid(y), value=0.5),
    "addcdiv": lambda s, y: torch.addcdiv(y, y, y.abs() + 1),
    "where": lambda s, y: torch.where(y > 0, y, 0.1 * y),
    "where with a number": lambda s, y: torch.where(y > 0, y, 0.5),
    "masked_fill": lambda s, y: y.masked_fill(s.mask, 0.25),
    "masked_fill of itself": lambda s, y: y.masked_fill(y < 0, 0.25),
    "clamp": lambda s, y: y.clamp(-0.5, 0.5),
    "lerp": lambda s, y: torch.lerp(y, y.abs(), 0.3),
    "prelu": lambda s, y: F.prelu(y, s.slope),
    "in place": lambda s, y: F.relu(y, inplace=True).mul_(2).add_(s.pixels),
    "autocast switched off": lambda s, y: off(y),
    "no gradients": lambda s, y: y * frozen_gate(y),
    "double precision": lambda s, y: (y.double() * 2).to(y.dtype),
    "type of another": lambda s, y: (y > 0).type_as(y) * y,
    "chained comparison": lambda s, y: y * ((y > 0) & (y < 1)).float(),
}


def off(y: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return torch.sigmoid(y.float()) * y


def frozen_gate(y: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.sigmoid(y)


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_and_masks_leave_the_channels_free(name: str) -> None:
    function = CONSTANTS[name]
    model = parts(
        lambda s, x: s.b(function(s, s.a(x))), a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 3, 1),
        scalar=nn.Parameter(torch.tensor(0.7)), single=torch.tensor([1.3]), pixels=torch.randn(4, 4),
        mask=torch.eye(4).bool(), slope=nn.Parameter(torch.rand(6)),
    )  # fmt: skip
    net = check(model, IMAGE)
    assert units(net) == {"a": 6}
    assert indices(net, "a", "b.weight", 1) == SINGLE
    if name == "prelu":
        assert indices(net, "a", "slope", 0) == SINGLE


@pytest.mark.parametrize("kind", ["buffer", "parameter"])
def test_an_added_table_goes_with_its_channels(kind: str) -> None:
    table = torch.randn(1, 5, 6)
    model = parts(
        lambda s, x: s.b(F.relu(s.a(x) + s.table[:, : x.shape[1]])),
        a=nn.Linear(7, 6), b=nn.Linear(6, 3), table=table if kind == "buffer" else nn.Parameter(table),
    )  # fmt: skip
    net = check(model, TOKENS)
    assert indices(net, "a", "table", 2) == SINGLE


def test_a_class_token_in_front() -> None:
    model = parts(
        lambda s, x: s.b(torch.cat([s.token.expand(x.shape[0], -1, -1), s.a(x)], 1)),
        a=nn.Linear(7, 6), b=nn.Linear(6, 3), token=weight(1, 1, 6),
    )  # fmt: skip
    net = check(model, TOKENS)
    assert {(m.parameter, m.dim) for m in net.groups[0].members} >= {("token", 2), ("a.weight", 0), ("b.weight", 1)}


@pytest.mark.parametrize("way", ["new_zeros", "zeros", "pad", "full"])
def test_filled_channels_beside_computed_ones(way: str) -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        if way == "pad":
            y = F.pad(y, (0, 0, 0, 0, 0, 4))
        else:
            n = x.shape[0]
            more = {
                "new_zeros": lambda: y.new_zeros(n, 4, 4, 4),
                "zeros": lambda: torch.zeros(n, 4, 4, 4),
                "full": lambda: torch.full((n, 4, 4, 4), 0.5),
            }[way]()
            y = torch.cat([y, more], 1)
        return s.b(y)

    net = check(parts(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(10, 3, 1)), IMAGE)
    assert indices(net, "a", "b.weight", 1) == SINGLE
    assert indices(net, "b", "b.weight", 1) == [[6], [7], [8], [9]]


def test_coordinates_beside_channels() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, 4).view(1, 1, 4, 1).expand(x.shape[0], 1, 4, 4)
        return s.b(torch.cat([s.a(x), rows, rows.transpose(2, 3)], 1))

    net = check(parts(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(8, 3, 1)), IMAGE)
    assert indices(net, "a", "b.weight", 1) == SINGLE


@pytest.mark.parametrize("training", [True, False])
def test_functional_dropout_stays_as_it_was_written(training: bool) -> None:
    model = parts(
        lambda s, x: s.b(F.dropout(s.a(x), 0.5) if training else F.dropout(s.a(x), 0.5, training=s.training)),
        a=nn.Linear(7, 6), b=nn.Linear(6, 3),
    )  # fmt: skip
    net = capture(model, (ROW,))
    pruned = net.prune(net.candidate({"a": [0, 2, 3]}))
    assert pruned.verification is not None
    outputs = [pruned.module(ROW) for _ in range(2)]
    assert torch.equal(*outputs) is not training
    (node,) = (n for n in pruned.module.graph.nodes if operator_name(n) == "dropout")
    if training:
        assert node.args[2] is True
        # On average over many draws, what the hand-cut layers give without dropout.
        torch.manual_seed(0)
        mean = torch.stack([pruned.module(ROW) for _ in range(4000)]).mean(0)
        weight = model.b.weight[:, [0, 2, 3]]
        torch.testing.assert_close(mean, F.linear(model.a(ROW)[:, [0, 2, 3]], weight, model.b.bias), atol=0.1, rtol=0)


@pytest.mark.parametrize("noise", ["randn_like", "rand", "bernoulli"])
def test_noise_has_as_many_channels_as_are_left(noise: str) -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        if noise == "randn_like":
            return s.b(y + 0 * torch.randn_like(y))
        if noise == "rand":
            return s.b(y + 0 * torch.rand(y.shape[0], 6))
        return s.b(y + 0 * torch.bernoulli(torch.sigmoid(y)))

    assert units(check(parts(forward, a=nn.Linear(7, 6), b=nn.Linear(6, 3)), ROW)) == {"a": 6}


def test_scatter_and_masked_selection_freeze_with_a_reason() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        return s.b(y.scatter(1, (x[:, :2] > 0).long(), 1.0))

    net = capture(parts(forward, a=nn.Linear(7, 6), b=nn.Linear(6, 3)), (ROW,))
    assert net.groups == ()
    assert frozen(net, "a") == "scatter in the model itself has no pruning rule"


def test_an_index_that_depends_on_the_input() -> None:
    """Tokens may be picked by what they hold, channels may not."""

    def tokens(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        best = y.mean(-1).argmax(-1)
        return s.b(y[torch.arange(y.shape[0]), best])

    model = parts(tokens, a=nn.Linear(7, 6), b=nn.Linear(6, 3))
    net = capture(model, (TOKENS,))
    assert units(net) == {"a": 6}
    pruned = net.prune(net.candidate({"a": [1, 2, 4]}))

    y = F.linear(TOKENS, model.a.weight[[1, 2, 4]], model.a.bias[[1, 2, 4]])
    picked = y[torch.arange(2), y.mean(-1).argmax(-1)]
    torch.testing.assert_close(pruned.module(TOKENS), F.linear(picked, model.b.weight[:, [1, 2, 4]], model.b.bias))


def test_gathered_tokens() -> None:
    def gathered(s: nn.Module, x: Tensor) -> Tensor:
        y = s.a(x)
        order = x[:, :, 0].argsort(1)[:, :3]
        return s.b(torch.gather(y, 1, order[..., None].expand(-1, -1, y.shape[-1])))

    net = check(parts(gathered, a=nn.Linear(7, 6), b=nn.Linear(6, 3)), TOKENS)
    assert units(net) == {"a": 6}


def test_several_outputs_and_a_dictionary_free_what_is_inside() -> None:
    def forward(s: nn.Module, x: Tensor) -> Any:
        y = F.relu(s.a(x))
        return {"one": s.b(y), "two": s.c(y)}

    model = parts(forward, a=nn.Linear(7, 6), b=nn.Linear(6, 3), c=nn.Linear(6, 2))
    net = capture(model, (ROW,))
    pruned = net.prune(net.candidate({"a": [1, 4]}))
    y = F.relu(model.a(ROW))[:, [1, 4]]
    found = pruned.module(ROW)
    torch.testing.assert_close(found["one"], F.linear(y, model.b.weight[:, [1, 4]], model.b.bias))
    torch.testing.assert_close(found["two"], F.linear(y, model.c.weight[:, [1, 4]], model.c.bias))
