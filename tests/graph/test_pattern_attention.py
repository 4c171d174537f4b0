"""Attention patterns: which indices go together, and that the smaller network computes what is left."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.graph.capture import capture
from edgeprune.graph.operators import operator_name
from tests.graph.independent import check, frozen, indices, parts, units, zeroed

TOKENS = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))
HEADS = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
POSITIONS = [[i, i + 4, i + 8] for i in range(4)]
# Of what is contracted between two activations, no weight is the consumer: both producers are zeroed.
BOTH = zeroed("consumer", "producer")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def attending(split: Callable[[Tensor], Tensor], merge: Callable[[Tensor], Tensor]) -> nn.Module:
    """Three heads of four."""

    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (split(layer(x)).transpose(1, 2) for layer in (s.q, s.k, s.v))
        weights = (q @ k.transpose(-2, -1) / math.sqrt(4)).softmax(-1)
        return s.o(merge((weights @ v).transpose(1, 2)))

    return parts(attend, q=nn.Linear(7, 12), k=nn.Linear(7, 12), v=nn.Linear(7, 12), o=nn.Linear(12, 3))


SPLITS = {
    "literal heads": (lambda y: y.view(y.shape[0], 5, 3, 4), lambda y: y.reshape(y.shape[0], 5, 12)),
    "inferred heads": (lambda y: y.view(y.shape[0], 5, -1, 4), lambda y: y.flatten(2)),
    "inferred head size": (lambda y: y.view(y.shape[0], 5, 3, -1), lambda y: y.reshape(*y.shape[:2], -1)),
    "unflatten": (lambda y: y.unflatten(-1, (3, 4)), lambda y: y.flatten(-2)),
}


@pytest.mark.parametrize("name", SPLITS)
def test_heads(name: str) -> None:
    net = check(attending(*SPLITS[name]), TOKENS)
    assert units(net) == {"q": 3}
    for layer in "qkv":
        assert indices(net, "q", f"{layer}.weight", 0) == HEADS
    assert indices(net, "q", "o.weight", 1) == HEADS


@pytest.mark.parametrize("name", SPLITS)
def test_head_size(name: str) -> None:
    net = check(attending(*SPLITS[name]), TOKENS, granularity="inner", reference=BOTH)
    assert units(net) == {"q": 4, "v": 4}
    assert indices(net, "q", "k.weight", 0) == POSITIONS
    assert indices(net, "v", "o.weight", 1) == POSITIONS


@pytest.mark.parametrize("granularity", ["outer", "inner"])
def test_scaled_dot_product_attention_keeps_its_scale(granularity: str) -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(-1, 5, 3, 4).transpose(1, 2) for layer in (s.q, s.k, s.v))
        return s.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(-1, 5, 12))

    model = parts(attend, q=nn.Linear(7, 12), k=nn.Linear(7, 12), v=nn.Linear(7, 12), o=nn.Linear(12, 3))
    net = check(model, TOKENS, granularity=granularity, reference=BOTH)
    assert units(net) == ({"q": 3} if granularity == "outer" else {"q": 4, "v": 4})


@pytest.mark.parametrize("granularity", ["outer", "inner"])
def test_fused_projection_unbound(granularity: str) -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = s.qkv(x).reshape(x.shape[0], 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return s.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape[0], 5, 8))

    model = parts(attend, qkv=nn.Linear(7, 24), o=nn.Linear(8, 3))
    net = check(model, TOKENS, granularity=granularity, reference=BOTH)
    if granularity == "outer":
        heads = [[8 * part + 4 * head + i for part in range(3) for i in range(4)] for head in range(2)]
        assert indices(net, "qkv", "qkv.weight", 0) == heads
        assert indices(net, "qkv", "o.weight", 1) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    else:
        assert units(net) == {"qkv": 4}


def test_fused_projection_chunked() -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (y.view(y.shape[0], 5, 2, 4).transpose(1, 2) for y in s.qkv(x).chunk(3, -1))
        return s.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape[0], 5, 8))

    net = check(parts(attend, qkv=nn.Linear(7, 24), o=nn.Linear(8, 3)), TOKENS)
    assert indices(net, "qkv", "o.weight", 1) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multi_head_attention(batch_first: bool, need_weights: bool) -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = s.inner(x if batch_first else x.transpose(0, 1))
        z = s.attention(y, y, y, need_weights=need_weights)[0]
        return s.head(z if batch_first else z.transpose(0, 1))

    model = parts(
        forward, inner=nn.Linear(7, 12),
        attention=nn.MultiheadAttention(12, 3, batch_first=batch_first), head=nn.Linear(12, 2),
    )  # fmt: skip
    net = check(model, TOKENS)
    assert units(net) == {"inner": 12, "attention.in_proj_weight": 3, "attention.out_proj": 12}
    assert indices(net, "inner", "attention.in_proj_weight", 1) == [[i] for i in range(12)]
    heads = [[12 * part + i for part in range(3) for i in head] for head in HEADS]
    assert indices(net, "attention.in_proj_weight", "attention.in_proj_weight", 0) == heads
    assert indices(net, "attention.in_proj_weight", "attention.out_proj.weight", 1) == HEADS


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_layer_in_evaluation_mode(norm_first: bool) -> None:
    """Its fast path is one operator; the captured graph must not be."""
    layer = nn.TransformerEncoderLayer(12, 3, 10, batch_first=True, norm_first=norm_first)
    model = parts(lambda s, x: s.head(s.layer(s.inner(x))), inner=nn.Linear(7, 12), layer=layer, head=nn.Linear(12, 2))
    net = capture(model, (TOKENS,))
    assert not [node for node in net.module.graph.nodes if "transformer_encoder" in operator_name(node)]
    assert units(net) == {"inner": 12, "layer.self_attn.in_proj_weight": 3, "layer.linear1": 10}

    def without_inner(m: nn.Module, net: object, removed: dict[str, list[int]]) -> Callable[..., Tensor]:
        """By hand: the layer norms over the kept width."""
        zero = {name: gone for name, gone in removed.items() if name != "inner"}
        if zero:
            zeroed("consumer")(m, net, zero)  # type: ignore[arg-type]
        kept = [i for i in range(12) if i not in removed.get("inner", [])]

        def run(x: Tensor) -> Tensor:
            def norm(n: nn.LayerNorm, y: Tensor) -> Tensor:
                full = torch.zeros_like(y)
                full[..., kept] = F.layer_norm(y[..., kept], (len(kept),), n.weight[kept], n.bias[kept])
                return full

            def attend(y: Tensor) -> Tensor:
                return m.layer.self_attn(y, y, y, need_weights=True)[0] * mask

            def feed(y: Tensor) -> Tensor:
                return m.layer.linear2(F.relu(m.layer.linear1(y))) * mask

            mask = torch.zeros(12)
            mask[kept] = 1
            y = m.inner(x) * mask
            if norm_first:
                y = y + attend(norm(m.layer.norm1, y))
                y = y + feed(norm(m.layer.norm2, y))
            else:
                y = norm(m.layer.norm1, y + attend(y))
                y = norm(m.layer.norm2, y + feed(y))
            return m.head(y)

        return run

    check(model, TOKENS, reference=without_inner)


def rotated_half(y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = y.chunk(2, -1)
    return y * cos + torch.cat([-second, first], -1) * sin


def rotated_pairs(y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotated = torch.stack([-y[..., 1::2], y[..., ::2]], -1).reshape(y.shape)
    return y * cos + rotated * sin


def rotated_as_pairs(y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = y.unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[..., ::2], sin[..., ::2]
    return torch.stack([even * c - odd * s, even * s + odd * c], -1).flatten(-2)


@pytest.mark.parametrize("granularity", ["outer", "inner"])
@pytest.mark.parametrize("rotate", [rotated_half, rotated_pairs, rotated_as_pairs])
def test_rotary_embedding(rotate: Callable[..., Tensor], granularity: str) -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(x.shape[0], 5, 3, 4).transpose(1, 2) for layer in (s.q, s.k, s.v))
        q, k = rotate(q, s.cos, s.sin), rotate(k, s.cos, s.sin)
        return s.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    angles = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.1])[None]
    angles = torch.cat([angles, angles], -1) if rotate is rotated_half else angles.repeat_interleave(2, -1)
    model = parts(
        attend, q=nn.Linear(7, 12), k=nn.Linear(7, 12), v=nn.Linear(7, 12), o=nn.Linear(12, 3),
        cos=angles.cos(), sin=angles.sin(),
    )  # fmt: skip
    net = check(model, TOKENS, granularity=granularity, reference=BOTH)
    if granularity == "outer":
        assert units(net) == {"q": 3}
        assert indices(net, "q", "k.weight", 0) == HEADS
    else:
        assert units(net) == {"q": 2, "v": 4}
        pairs = [[0, 2], [1, 3]] if rotate is rotated_half else [[0, 1], [2, 3]]
        assert indices(net, "q", "q.weight", 0) == [[4 * head + i for head in range(3) for i in p] for p in pairs]
        assert indices(net, "q", "cos", 1) == ([[0], [2]] if rotate is rotated_as_pairs else pairs)


@pytest.mark.parametrize("granularity", ["outer", "inner"])
@pytest.mark.parametrize("way", ["enable_gqa", "expand", "repeat_interleave"])
@pytest.mark.parametrize("shared", [2, 1])
def test_grouped_and_multi_query_attention(shared: int, way: str, granularity: str) -> None:
    """Six query heads of four; `shared` key and value heads."""

    def attend(s: nn.Module, x: Tensor) -> Tensor:
        b = x.shape[0]
        q = s.q(x).view(b, 5, 6, 4).transpose(1, 2)
        k, v = (layer(x).view(b, 5, shared, 4).transpose(1, 2) for layer in (s.k, s.v))
        if way == "expand":
            k, v = (y[:, :, None].expand(b, shared, 6 // shared, 5, 4).reshape(b, 6, 5, 4) for y in (k, v))
        elif way == "repeat_interleave":
            k, v = (y.repeat_interleave(6 // shared, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=way == "enable_gqa")
        return s.o(y.transpose(1, 2).reshape(b, 5, 24))

    model = parts(
        attend, q=nn.Linear(7, 24), k=nn.Linear(7, 4 * shared), v=nn.Linear(7, 4 * shared), o=nn.Linear(24, 3)
    )
    net = check(model, TOKENS, granularity=granularity, reference=BOTH)
    if granularity == "inner" or (shared == 1 and way == "repeat_interleave"):
        # A repetition has no literal that could repeat one head less often.
        assert units(net) == {"q": 4, "v": 4}
        assert indices(net, "q", "k.weight", 0) == [[4 * head + i for head in range(shared)] for i in range(4)]
    elif shared == 2:  # a shared head goes with its three query heads
        assert units(net) == {"q": 2}
        assert indices(net, "q", "q.weight", 0) == indices(net, "q", "o.weight", 1) == [[*range(12)], [*range(12, 24)]]
        assert indices(net, "q", "v.weight", 0) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    else:  # the shared head stays
        assert units(net) == {"q": 6}
        assert indices(net, "q", "o.weight", 1) == [[4 * head + i for i in range(4)] for head in range(6)]
        assert "multiplies it with a fixed dimension" in frozen(net, "k")


def test_relative_position_bias_table() -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(x.shape[0], 5, 3, 4).transpose(1, 2) for layer in (s.q, s.k, s.v))
        bias = s.table[s.index.view(-1)].view(5, 5, -1).permute(2, 0, 1).contiguous()
        weights = (q @ k.mT + bias.unsqueeze(0)).softmax(-1)
        return s.o((weights @ v).transpose(1, 2).reshape(x.shape[0], 5, 12))

    index = torch.arange(5)[:, None] - torch.arange(5)[None] + 4
    model = parts(
        attend, q=nn.Linear(7, 12), k=nn.Linear(7, 12), v=nn.Linear(7, 12), o=nn.Linear(12, 3),
        table=nn.Parameter(torch.randn(9, 3)), index=index,
    )  # fmt: skip
    net = check(model, TOKENS)
    assert units(net) == {"q": 3}
    assert indices(net, "q", "table", 1) == [[0], [1], [2]]


def test_batched_products_of_flattened_heads() -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        b = x.shape[0]
        q, k, v = (layer(x).view(b, 5, 3, 4).transpose(1, 2).reshape(b * 3, 5, 4) for layer in (s.q, s.k, s.v))
        scores = torch.baddbmm(s.mask, q, k.transpose(1, 2), alpha=0.5)
        y = torch.bmm(scores.softmax(-1), v)
        return s.o(y.view(b, 3, 5, 4).transpose(1, 2).reshape(b, 5, 12))

    model = parts(
        attend, q=nn.Linear(7, 12), k=nn.Linear(7, 12), v=nn.Linear(7, 12), o=nn.Linear(12, 3),
        mask=torch.randn(1, 5, 5),
    )  # fmt: skip
    net = check(model, TOKENS)
    assert units(net) == {"q": 3}
    assert indices(net, "q", "o.weight", 1) == HEADS


def test_attention_by_einsum() -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhe->bthe", x, w) for w in (s.q, s.k, s.v))
        weights = torch.einsum("bthe,bshe->bhts", q, k).softmax(-1)
        return torch.einsum("bhts,bshe,heo->bto", weights, v, s.o)

    model = parts(
        attend, **{n: nn.Parameter(torch.randn(7, 3, 4)) for n in "qkv"}, o=nn.Parameter(torch.randn(3, 4, 2))
    )
    net = check(model, TOKENS, reference=BOTH)
    assert units(net) == {"q": 3, "q:2": 4, "v": 4}
    assert indices(net, "q", "o", 0) == [[0], [1], [2]]
    assert indices(net, "q:2", "k", 2) == indices(net, "v", "o", 1) == [[i] for i in range(4)]


def test_masks_by_masked_fill_and_where() -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(x.shape[0], 5, 3, 4).transpose(1, 2) for layer in (s.q, s.k, s.v))
        scores = (q @ k.mT).masked_fill(s.mask, float("-inf"))
        scores = torch.where(s.mask, torch.finfo(scores.dtype).min, scores)
        return s.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape[0], 5, 12))

    model = parts(
        attend, q=nn.Linear(7, 12), k=nn.Linear(7, 12), v=nn.Linear(7, 12), o=nn.Linear(12, 3),
        mask=torch.ones(5, 5).triu(1).bool(),
    )  # fmt: skip
    assert units(check(model, TOKENS)) == {"q": 3}


def test_attention_over_channels() -> None:
    """Channels attend to channels: within a head they are normalised over, so that only whole heads may go."""

    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = s.qkv(x).view(x.shape[0], 5, 3, 3, 4).permute(2, 0, 3, 4, 1).unbind(0)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = (q @ k.mT * s.temperature).softmax(-1)
        return s.o((weights @ v).permute(0, 3, 1, 2).reshape(x.shape[0], 5, 12))

    model = parts(attend, qkv=nn.Linear(7, 36), o=nn.Linear(12, 3), temperature=nn.Parameter(torch.rand(3, 1, 1)))
    net = check(model, TOKENS)
    assert indices(net, "qkv", "o.weight", 1) == HEADS
    assert indices(net, "qkv", "temperature", 0) == [[0], [1], [2]]


def test_attention_without_heads_over_an_image() -> None:
    def attend(s: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (s.q, s.k, s.v))
        y = torch.bmm(v, torch.bmm(q.transpose(1, 2), k).softmax(-1).transpose(1, 2))
        return s.o(y.view(x.shape[0], -1, 4, 4)) + x

    model = parts(attend, q=nn.Conv2d(3, 4, 1), k=nn.Conv2d(3, 4, 1), v=nn.Conv2d(3, 6, 1), o=nn.Conv2d(6, 3, 1))
    net = check(model, torch.randn(2, 3, 4, 4), reference=BOTH)
    assert units(net) == {"q": 4, "v": 6}
    assert frozen(net, "o")
