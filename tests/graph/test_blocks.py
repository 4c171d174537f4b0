"""Dropping residual blocks: found from the graph alone, verified, combined with channels, saved and exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import UsageError, VerificationError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.graph.storage import load
from edgeprune.pipeline.export import export
from edgeprune.records.candidate import Candidate
from tests.graph.models import build, randomised

BLOCKS = {  # by hand: a block is what an addition adds to the tensor that it was computed from
    "resnet": ["blocks.0", "blocks.2"],
    "vgg": [],
    "mobilenet_v2": ["blocks.0.body", "blocks.2.body"],
    "densenet": [],
    "shufflenet": [],
    "vit": ["blocks.0.qkv", "blocks.0.mlp", "blocks.1.qkv", "blocks.1.mlp"],
    "vit_unfused": ["blocks.0.qkv", "blocks.0.mlp", "blocks.1.qkv", "blocks.1.mlp"],
    "mlp": [],
}


class Model(nn.Module):
    """Layers a to d of 6 features, used as the function says."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        for name in "abcd":
            self.add_module(name, nn.Linear(6, 6))
        self.gamma = nn.Parameter(torch.full((6,), 1e-6))
        self.norm = nn.LayerNorm(6)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self._forward(self, self.stem(x)))
        return result


def small(forward: Callable[..., Tensor]) -> tuple[Any, Captured]:
    torch.manual_seed(0)
    model = randomised(Model(forward))
    return model, capture(model, (torch.randn(2, 6),))


def names(captured: Captured) -> list[str]:
    return [block.name for block in captured.blocks]


def nested(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    y = y + F.relu(m.b(y))
    return torch.relu(x + m.c(y))


CASES: dict[str, tuple[Callable[..., Tensor], dict[str, Callable[..., Tensor]]]] = {
    # what the model computes, and per block what it computes without
    "plain": (lambda m, x: x + m.a(x), {"a": lambda _, x: x}),
    "left": (lambda m, x: m.a(x) + x, {"a": lambda _, x: x}),
    "in place": (lambda m, x: m.a(x).add_(x), {"a": lambda _, x: x}),
    "relu after": (lambda m, x: torch.relu(x + m.b(m.a(x))), {"a": lambda _, x: torch.relu(x)}),
    "relu in place, x read later": (
        lambda m, x: torch.relu_(x + m.a(x)) * m.c(x),
        {"a": lambda m, x: torch.relu(x) * m.c(x)},
    ),
    "layer scale and dropout": (
        lambda m, x: x + F.dropout(m.gamma * m.a(m.norm(x)), 0.5, m.training),
        {"a": lambda _, x: x},
    ),
    "scaled": (lambda m, x: torch.add(x, m.a(x), alpha=0.5), {"a": lambda _, x: x}),
    "two branches of one sum": (
        lambda m, x: x + m.a(x) + m.b(x),
        {"a": lambda m, x: x + m.b(x), "b": lambda m, x: x + m.a(x)},
    ),
    "a shared norm": (
        lambda m, x: x + m.a(m.norm(x)) + m.b(m.norm(x)),
        {"a": lambda m, x: x + m.b(m.norm(x)), "b": lambda m, x: x + m.a(m.norm(x))},
    ),
    "nested": (
        nested,
        {
            "b": lambda m, x: torch.relu(x + m.c(m.a(x))),
            "a": lambda _, x: torch.relu(x),
        },
    ),
    "downsampling": (lambda m, x: m.a(x) + m.b(x), {}),
    "read elsewhere": (lambda m, x: (x + (y := m.a(x))) * y, {}),
    "no parameters": (lambda m, x: m.a(x) * 0.5 * (1 + torch.tanh(x + 0.044 * x**3)), {}),
    "broadcast": (lambda m, x: x + m.a(x).mean(1, keepdim=True), {}),
    "changed in place before": (
        lambda m, x: m.b(x * 1.0) + m.a(torch.relu_(x)) + x,
        {"a": lambda _, x: torch.relu(x)},  # both linear layers
    ),
    "changes a part of what stays": (
        lambda m, x: m.b(x) + (x + m.a(x[:, :3].relu_().repeat(1, 2))),
        {"b": lambda m, x: torch.cat([x[:, :3].relu(), x[:, 3:]], 1) + m.a(x[:, :3].relu().repeat(1, 2))},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_block_goes_and_the_rest_computes_what_is_written_down(case: str) -> None:
    forward, without = CASES[case]
    model, captured = small(forward)
    assert sorted(names(captured)) == sorted(without)
    x = torch.randn(3, 6)
    for name, expected in without.items():
        pruned = captured.prune(captured.candidate(dropped_blocks=[name]))
        assert pruned.verification is not None
        before = x.clone()
        torch.testing.assert_close(pruned.module(x), model.head(expected(model, model.stem(x))))
        assert torch.equal(x, before)
        gone = captured.blocks[names(captured).index(name)]
        left = dict(pruned.module.named_parameters())
        assert gone.params == sum(p.numel() for n, p in captured.module.named_parameters() if n not in left)
        assert not set(gone.parameters) & set(left)


def test_what_several_blocks_share_goes_with_the_last_of_them() -> None:
    _, captured = small(CASES["a shared norm"][0])
    left = captured.prune(captured.candidate(dropped_blocks=["a", "b"]))
    assert sorted(dict(left.module.named_parameters())) == ["head.bias", "head.weight", "stem.bias", "stem.weight"]
    assert "norm.weight" in dict(captured.prune(captured.candidate(dropped_blocks=["a"])).module.named_parameters())


def test_an_outer_block_includes_its_inner_one() -> None:
    _, captured = small(nested)
    assert names(captured) == ["b", "a"]
    inner, outer = captured.blocks
    assert set(inner.nodes) < set(outer.nodes)
    assert (inner.params, outer.params) == (42, 126)
    both = captured.prune(captured.candidate(dropped_blocks=["a", "b"]))
    alone = captured.prune(captured.candidate(dropped_blocks=["a"]))
    x = torch.randn(3, 6)
    assert torch.equal(both.module(x), alone.module(x))


@pytest.mark.parametrize("family", BLOCKS)
def test_every_block_of_every_family_goes_alone_and_with_channels(family: str) -> None:
    model, inputs = build(family)
    captured = capture(model, inputs)
    assert names(captured) == BLOCKS[family]
    half = captured.uniform(0.5).kept
    dense = captured.cost()
    for block in captured.blocks:
        alone = captured.prune(captured.candidate(dropped_blocks=[block.name]))
        assert alone.cost().params == dense.params - block.params
        assert alone.cost().macs == dense.macs - block.macs
        captured.prune(Candidate(half, (block.name,)))
    if captured.blocks:
        smallest = captured.prune(Candidate(half, tuple(BLOCKS[family])))
        assert not smallest.blocks
        again = smallest.prune(smallest.uniform(0.5))
        assert again.cost().params < smallest.cost().params


def test_a_model_without_a_block_is_saved_exported_and_trained(tmp_path: Path) -> None:
    model, inputs = build("resnet")
    captured = capture(model, inputs)
    pruned = captured.prune(Candidate(captured.uniform(0.25).kept, ("blocks.2",)))
    pruned.save(tmp_path / "small.pt2")
    x = torch.randn(2, 3, 32, 32)
    expected = pruned.module(x)
    torch.testing.assert_close(load(tmp_path / "small.pt2").module(x), expected)
    export(pruned, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected.detach(), rtol=1e-4, atol=1e-4)
    before = [p.detach().clone() for p in pruned.module.parameters()]
    pruned.module.train()
    optimizer = torch.optim.SGD(pruned.module.parameters(), lr=0.1)
    pruned.module(x).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, pruned.module.parameters(), strict=True) if a.dim() > 1)


def test_a_block_that_is_not_wholly_gone_is_caught() -> None:
    _, captured = small(lambda m, x: x + m.a(x) + m.b(x))
    keep = captured._keep(Candidate())
    first, second = captured.blocks
    wrong = captured.prune(captured.candidate(dropped_blocks=[first.name])).module
    with pytest.raises(VerificationError, match="differs from its reference"):
        captured.check(wrong, keep, [second])
    with pytest.raises(VerificationError, match="differs from its reference"):
        captured.check(wrong, keep)
    captured.check(wrong, keep, [first])


def test_an_unknown_block_is_refused_with_those_that_there_are() -> None:
    _, captured = small(nested)
    with pytest.raises(UsageError, match="no block is named 'A'") as refused:
        captured.prune(Candidate(dropped_blocks=("A",)))
    assert refused.value.hint is not None
    assert "did you mean 'a'?" in refused.value.hint
    _, chain = small(lambda m, x: m.a(x))
    with pytest.raises(UsageError) as refused:
        chain.candidate(dropped_blocks=["a"])
    assert refused.value.hint == "the model has no residual block that could be dropped"
