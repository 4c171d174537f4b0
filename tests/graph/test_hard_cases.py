"""Cases in which a rule, the surgery or the verification was once wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import UsageError, VerificationError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from tests.graph.test_patterns import captured, check_all_single_removals


def halved(net: Captured) -> None:
    pruned = net.prune(net.uniform(0.5))
    assert pruned.verification is not None
    assert pruned.verification.relative_error <= 1e-9


class Retention(nn.Module):
    """One group of a group-norm per head."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, 32) for _ in range(3))
        self.n, self.o = nn.GroupNorm(4, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (layer(x).view(b, t, 4, 8).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b * t, 32)
        return self.o(self.n(y)).view(b, t, 3)


def test_whole_groups_of_a_group_norm_are_not_removed_with_a_wrong_result() -> None:
    torch.manual_seed(0)
    model, x = Retention().eval(), torch.randn(2, 10, 16)
    net = capture(model, (x,))
    for group in net.groups:
        if group.units < 2:
            continue
        pruned = net.prune(net.candidate({group.name: [0]}))
        reference = copy.deepcopy(model)
        consumer = next(m for m in group.members if m.parameter == "o.weight")
        with torch.no_grad():
            reference.o.weight[:, consumer.indices[1:].ravel()] = 0
        torch.testing.assert_close(pruned.module(x), reference(x))


def test_grouped_convolution_with_one_output_per_group() -> None:
    net = captured(
        lambda s, x: s.c(F.relu(s.b(s.a(x)))), 3, 8, 8,
        a=nn.Conv2d(3, 16, 1), b=nn.Conv2d(16, 8, 3, groups=8), c=nn.Conv2d(8, 3, 1),
    )  # fmt: skip
    halved(net)
    again = net.prune(net.uniform(0.5))
    for group in again.groups:
        assert group.units >= 1


class Broken(nn.Module):
    """A net whose pruned form is spoilt by the test below; the outputs try to hide it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.l, self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 8), nn.Linear(8, 3)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.b(F.relu(self.a(x)))
        if self.kind == "infinite":
            return y.masked_fill(torch.tensor([False, False, True]), float("-inf"))
        if self.kind == "gated":
            return self.l(x) + self.alpha * y
        return self.l(x) * 1e12, y


@pytest.mark.parametrize("kind", ["infinite", "gated", "drowned"])
def test_verification_is_not_fooled(kind: str) -> None:
    torch.manual_seed(0)
    net = capture(Broken(kind), (torch.randn(4, 6),))
    candidate = net.candidate({"a": [0, 2, 3, 7]})
    pruned = net.prune(candidate)
    with torch.no_grad():
        weight = pruned.module.get_parameter("b.weight")
        weight.copy_(weight.roll(1, 1))
    with pytest.raises(VerificationError):
        net.check(pruned.module, net._keep(candidate))


def test_inputs_on_which_random_numbers_give_no_number() -> None:
    torch.manual_seed(0)
    net = captured(
        lambda s, x: s.b(F.relu(s.a(torch.log(x.abs() + 0 * x.sqrt())))), 6, a=nn.Linear(6, 8), b=nn.Linear(8, 3)
    )
    net = capture(net.module, (torch.rand(4, 6) + 0.5,))
    halved(net)


def test_maximum_of_two_layers_ties_them() -> None:
    net = captured(
        lambda s, x: s.c(torch.max(s.a(x), s.b(x))), 7, a=nn.Linear(7, 8), b=nn.Linear(7, 8), c=nn.Linear(8, 3)
    )
    (group,) = net.groups
    assert {m.parameter for m in group.members} == {"a.weight", "a.bias", "b.weight", "b.bias", "c.weight"}
    check_all_single_removals(net)


def test_type_as_passes_on_its_own_tensor_alone() -> None:
    net = captured(
        lambda s, x: s.b((y := s.a(x)) * (x.mean(1, keepdim=True) > 0).type_as(y)),
        7,
        a=nn.Linear(7, 8),
        b=nn.Linear(8, 3),
    )
    check_all_single_removals(net)


@pytest.mark.parametrize("tokens", [5, -1])
@pytest.mark.parametrize("granularity", ["outer", "inner"])
def test_heads_merged_with_a_batch_of_one(granularity: str, tokens: int) -> None:
    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            b, t, _ = x.shape
            q, k, v = (
                layer(x).view(b, t, 4, 4).transpose(1, 2).reshape(b * 4, tokens, 4)
                for layer in (self.q, self.k, self.v)
            )
            y = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)
            return self.o(y.view(b, 4, t, 4).transpose(1, 2).reshape(b, t, 16))

    torch.manual_seed(0)
    net = capture(Merged(), (torch.randn(1, 5, 16),), granularity=granularity)  # type: ignore[arg-type]
    assert net.groups
    halved(net)
    assert net.prune(net.uniform(0.5)).module(torch.randn(3, 5, 16)).shape == (3, 5, 16)


def test_squeeze_of_everything_does_not_squeeze_a_single_kept_channel() -> None:
    net = captured(
        lambda s, x: s.b(s.a(x).mean((2, 3), keepdim=True).squeeze()), 3, 4, 4, a=nn.Conv2d(3, 8, 1), b=nn.Linear(8, 3)
    )
    pruned = net.prune(net.candidate({"a": [3]}))
    assert pruned.module(torch.randn(2, 3, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize("granularity", ["outer", "inner"])
def test_normalised_queries_and_keys(granularity: str) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
            self.n, self.m = nn.LayerNorm(4), nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            b, t, _ = x.shape
            q, k, v = (layer(x).view(b, t, 4, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(self.n(q), self.m(k), v)
            return self.o(y.transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    net = capture(Normalised(), (torch.randn(2, 5, 16),), granularity=granularity)  # type: ignore[arg-type]
    assert net.groups
    halved(net)


def test_heads_of_multi_head_attention() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(7, 16)
            self.attention, self.head = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            return self.head(y + self.attention(y, y, y, need_weights=False)[0])

    torch.manual_seed(0)
    net = capture(Encoder(), (torch.randn(2, 5, 7),))
    assert 4 in {group.units for group in net.groups}
    check_all_single_removals(net)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_repeats_pixels(mode: str) -> None:
    net = captured(
        lambda s, x: s.b(F.pad(s.a(x), (1, 1, 1, 1), mode=mode)), 3, 4, 4, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 3, 3)
    )
    (group,) = net.groups
    assert group.units == 6
    check_all_single_removals(net)


def test_granularity_stays_with_a_pruned_model() -> None:
    from tests.graph.models import ViT

    torch.manual_seed(0)
    net = capture(ViT(), (torch.randn(2, 3, 32, 32),), granularity="inner")
    pruned = net.prune(net.candidate({"blocks.0.qkv": [0, 1, 2]}))
    assert {g.name: g.units for g in pruned.groups if "qkv" in g.name} == {"blocks.0.qkv": 3, "blocks.1.qkv": 6}


@pytest.mark.parametrize("units", [["a"], 3, None, [1.5], [True]])
def test_units_that_are_no_indices_are_refused(units: object) -> None:
    net = captured(lambda s, x: s.b(s.a(x)), 7, a=nn.Linear(7, 8), b=nn.Linear(8, 3))
    with pytest.raises(UsageError, match="'a': the kept units are a list of indices"):
        net.candidate({"a": units})  # type: ignore[dict-item]
