"""Small patterns with hand-computed coupling: which indices of which parameters go together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.graph.groups import ChannelGroup


class Net(nn.Module):
    """Parts by name, and a forward that uses them."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self, x)


def captured(forward: Callable[[Net, Tensor], Tensor], *shape: int, **parts: nn.Module) -> Captured:
    torch.manual_seed(0)
    return capture(Net(forward, **parts), (torch.randn(2, *shape),))


def indices(group: ChannelGroup, parameter: str, dim: int) -> list[list[int]]:
    return next(m.indices.tolist() for m in group.members if (m.parameter, m.dim) == (parameter, dim))


def check_all_single_removals(net: Captured) -> None:
    """Remove each unit of each group on its own; every result must equal its reference."""
    assert net.groups
    for group in net.groups:
        for unit in range(min(group.units, 6)):
            kept = [u for u in range(group.units) if u != unit]
            if kept:
                pruned = net.prune(net.candidate({group.name: kept}))
                assert pruned.verification is not None
                assert pruned.verification.relative_error <= 1e-9


def test_conv_relu_conv() -> None:
    net = captured(lambda s, x: s.b(F.relu(s.a(x))), 3, 8, 8, a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 4, 3))
    (group,) = net.groups
    assert (group.name, group.units) == ("a", 6)
    assert [(m.parameter, m.dim, m.role) for m in group.members] == [
        ("a.weight", 0, "producer"),
        ("a.bias", 0, "producer"),
        ("b.weight", 1, "consumer"),
    ]
    assert indices(group, "b.weight", 1) == [[i] for i in range(6)]
    check_all_single_removals(net)


def test_depthwise_with_multiplier_two() -> None:
    net = captured(
        lambda s, x: s.c(s.b(s.a(x))),
        3,
        8,
        8,
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 8, 3, groups=4),
        c=nn.Conv2d(8, 5, 1),
    )
    (group,) = net.groups
    assert indices(group, "b.weight", 0) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert indices(group, "c.weight", 1) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    check_all_single_removals(net)


def test_grouped_convolution_loses_the_same_positions_in_every_group() -> None:
    net = captured(
        lambda s, x: s.c(s.b(s.a(x))),
        3,
        8,
        8,
        a=nn.Conv2d(3, 8, 1),
        b=nn.Conv2d(8, 12, 3, groups=2),
        c=nn.Conv2d(12, 5, 1),
    )
    first, second = net.groups
    assert indices(first, "a.weight", 0) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert indices(first, "b.weight", 1) == [[0], [1], [2], [3]]
    assert indices(second, "b.weight", 0) == [[i, i + 6] for i in range(6)]
    check_all_single_removals(net)


def test_zero_padded_shortcut_ties_the_middle_channels() -> None:
    net = captured(
        lambda s, x: s.c(s.b(y := s.a(x)) + F.pad(y, (0, 0, 0, 0, 2, 2))),
        3,
        8,
        8,
        a=nn.Conv2d(3, 4, 3),
        b=nn.Conv2d(4, 8, 3, padding=1),
        c=nn.Conv2d(8, 5, 1),
    )
    inner, outer = sorted(net.groups, key=lambda g: g.name)
    assert indices(inner, "a.weight", 0) == [[0], [1], [2], [3]]
    assert indices(inner, "b.weight", 0) == [[2], [3], [4], [5]]
    assert indices(outer, "b.weight", 0) == [[0], [1], [6], [7]]
    check_all_single_removals(net)


def test_flatten_keeps_every_pixel_of_a_channel() -> None:
    net = captured(lambda s, x: s.b(s.a(x).flatten(1)), 3, 4, 4, a=nn.Conv2d(3, 5, 3), b=nn.Linear(20, 3))
    (group,) = net.groups
    assert indices(group, "b.weight", 1) == [[4 * c + p for p in range(4)] for c in range(5)]
    check_all_single_removals(net)


def test_flatten_of_channels_last() -> None:
    net = captured(
        lambda s, x: s.b(s.a(x).permute(0, 2, 3, 1).flatten(1)), 3, 4, 4, a=nn.Conv2d(3, 5, 3), b=nn.Linear(20, 3)
    )
    (group,) = net.groups
    assert indices(group, "b.weight", 1) == [[c + 5 * p for p in range(4)] for c in range(5)]
    check_all_single_removals(net)


def test_concatenating_a_tensor_with_itself() -> None:
    net = captured(
        lambda s, x: s.b(torch.cat([y := s.a(x), y], 1)), 3, 4, 4, a=nn.Conv2d(3, 5, 3), b=nn.Conv2d(10, 3, 1)
    )
    (group,) = net.groups
    assert indices(group, "b.weight", 1) == [[i, i + 5] for i in range(5)]
    check_all_single_removals(net)


def test_channel_shuffle() -> None:
    def shuffled(s: Net, x: Tensor) -> Tensor:
        y = s.a(x)
        y = y.view(y.shape[0], 2, 3, 2, 2).transpose(1, 2).reshape(y.shape[0], 6, 2, 2)
        return s.b(y)

    net = captured(shuffled, 3, 4, 4, a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 3, 1))
    (group,) = net.groups
    assert indices(group, "a.weight", 0) == [[0, 3], [1, 4], [2, 5]]
    assert indices(group, "b.weight", 1) == [[0, 1], [2, 3], [4, 5]]
    check_all_single_removals(net)


def test_a_layer_used_twice() -> None:
    net = captured(
        lambda s, x: s.c(s.b(s.b(s.a(x)))), 3, 4, 4, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), c=nn.Conv2d(4, 3, 1)
    )
    (group,) = net.groups
    assert indices(group, "b.weight", 0) == indices(group, "b.weight", 1) == [[i] for i in range(4)]
    check_all_single_removals(net)


def test_squeeze_excite() -> None:
    def excited(s: Net, x: Tensor) -> Tensor:
        y = s.a(x)
        return s.d(y * torch.sigmoid(s.c(F.relu(s.b(y.mean((2, 3), keepdim=True))))))

    net = captured(
        excited, 3, 4, 4, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 2, 1), c=nn.Conv2d(2, 6, 1), d=nn.Conv2d(6, 3, 1)
    )
    assert {g.name: g.units for g in net.groups} == {"a": 6, "b": 2}
    check_all_single_removals(net)


def test_gated_linear_unit() -> None:
    net = captured(lambda s, x: s.b(F.glu(s.a(x), dim=-1)), 7, a=nn.Linear(7, 8), b=nn.Linear(4, 3))
    (group,) = net.groups
    assert indices(group, "a.weight", 0) == [[i, i + 4] for i in range(4)]
    check_all_single_removals(net)


def test_literal_slices_and_uneven_split() -> None:
    def sliced(s: Net, x: Tensor) -> Tensor:
        y = s.a(x)
        p, q = y.split([2, 4], dim=1)
        return s.b(y[:, 1:5]) + s.c(p) + s.d(q)

    net = captured(sliced, 7, a=nn.Linear(7, 6), b=nn.Linear(4, 3), c=nn.Linear(2, 3), d=nn.Linear(4, 3))
    check_all_single_removals(net)


def test_layer_norm_is_computed_over_what_is_kept() -> None:
    net = captured(lambda s, x: s.b(s.n(s.a(x))), 7, a=nn.Linear(7, 6), n=nn.LayerNorm(6), b=nn.Linear(6, 3))
    (group,) = net.groups
    assert {m.parameter for m in group.members} == {"a.weight", "a.bias", "n.weight", "n.bias", "b.weight"}
    pruned = net.prune(net.candidate({"a": [0, 2, 5]}))
    x, keep, model = torch.randn(4, 7), [0, 2, 5], net.module
    hidden = F.linear(x, model.get_parameter("a.weight")[keep], model.get_parameter("a.bias")[keep])
    hidden = F.layer_norm(hidden, (3,), model.get_parameter("n.weight")[keep], model.get_parameter("n.bias")[keep])
    expected = F.linear(hidden, model.get_parameter("b.weight")[:, keep], model.get_parameter("b.bias"))
    torch.testing.assert_close(pruned.module(x), expected)
    check_all_single_removals(net)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(groups: int) -> None:
    net = captured(
        lambda s, x: s.b(s.n(s.a(x))), 3, 4, 4, a=nn.Conv2d(3, 6, 1), n=nn.GroupNorm(groups, 6), b=nn.Conv2d(6, 3, 1)
    )
    (group,) = net.groups
    assert group.units == (3 if groups == 2 else 6)
    check_all_single_removals(net)


def test_mean_over_channels_is_computed_over_what_is_kept() -> None:
    net = captured(
        lambda s, x: s.b((y := s.a(x)) * y.mean(1, keepdim=True)), 3, 4, 4, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 3, 1)
    )
    check_all_single_removals(net)


def test_head_size_instead_of_heads() -> None:
    from tests.graph.models import ViT

    torch.manual_seed(0)
    net = capture(ViT(), (torch.randn(2, 3, 32, 32),), granularity="inner")
    # One fused projection is viewed as (3, heads, head size): query, key and value share their positions.
    assert {g.name: g.units for g in net.groups if "qkv" in g.name} == {"blocks.0.qkv": 6, "blocks.1.qkv": 6}
    assert indices(net.groups[1], "blocks.0.qkv.weight", 0)[0] == [
        24 * part + 6 * head for part in range(3) for head in range(4)
    ]
    check_all_single_removals(net)


def test_attention_with_view_minus_one() -> None:
    def attend(s: Net, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, -1, 4).transpose(1, 2) for layer in (s.q, s.k, s.v))
        return s.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1))

    net = captured(attend, 5, 7, q=nn.Linear(7, 12), k=nn.Linear(7, 12), v=nn.Linear(7, 12), o=nn.Linear(12, 3))
    (group,) = net.groups
    assert group.units == 3
    assert indices(group, "v.weight", 0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    check_all_single_removals(net)


def test_an_operator_without_a_rule_is_a_barrier_with_a_name() -> None:
    net = captured(lambda s, x: s.b(torch.cdist(s.a(x), s.a(x))), 5, 7, a=nn.Linear(7, 6), b=nn.Linear(5, 3))
    assert net.groups == ()
    assert [g.frozen for g in net.frozen if g.name == "a"] == ["cdist in the model itself has no pruning rule"]


def test_softmax_over_channels_freezes_them() -> None:
    net = captured(lambda s, x: s.b(s.a(x).softmax(1)), 7, a=nn.Linear(7, 6), b=nn.Linear(6, 3))
    assert net.groups == ()
    assert [g.frozen for g in net.frozen if g.name == "a"] == ["softmax in the model itself normalises over it"]


def test_adding_the_input_freezes() -> None:
    net = captured(lambda s, x: s.b(s.a(x) + x), 7, a=nn.Linear(7, 7), b=nn.Linear(7, 3))
    assert net.groups == ()


def test_tied_weights_share_their_units() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(7, 5, bias=False), nn.Linear(7, 5, bias=False)
            self.b.weight = self.a.weight
            self.c = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x) * self.b(x + 1))

    torch.manual_seed(0)
    net = capture(Tied(), (torch.randn(2, 7),))
    check_all_single_removals(net)
    assert net.prune(net.candidate({net.groups[0].name: [0, 1]})).cost().params == 14 + 6 + 3


def test_a_pointwise_convolution_lets_the_positions_of_its_length_go() -> None:
    net = captured(
        lambda s, x: s.b(s.mix(s.a(x)).squeeze(1)), 3, 7,
        a=nn.Linear(7, 6), mix=nn.Conv1d(3, 1, 1), b=nn.Linear(6, 2),
    )  # fmt: skip
    (group,) = net.groups
    assert [(m.parameter, m.dim) for m in group.members] == [("a.weight", 0), ("a.bias", 0), ("b.weight", 1)]
    check_all_single_removals(net)


def test_a_convolution_over_the_channels_freezes_them() -> None:
    net = captured(
        lambda s, x: s.b(s.mix(s.a(x))), 1, 7,
        a=nn.Linear(7, 6), mix=nn.Conv1d(1, 1, 3, padding=1), b=nn.Linear(6, 2),
    )  # fmt: skip
    assert net.groups == ()
