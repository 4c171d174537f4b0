"""Sizes of operators as functions of the kept units, against graphs that were really pruned."""

from __future__ import annotations

import time
from functools import cache
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import edgeprune as ep
from edgeprune.graph.captured import Captured
from edgeprune.graph.operators import at_batch, shape_of
from edgeprune.graph.shapes import inner_groups, operator_shapes, operators_at, trained
from edgeprune.graph.sizes import Size, product
from edgeprune.records.candidate import Candidate
from tests.graph.models import FAMILIES, build


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, 1)
        self.up = nn.ConvTranspose2d(12, 6, 2, 2)
        self.join, self.head = nn.Conv2d(14, 10, 3, padding=1), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.down1(x))
        up = self.up(torch.relu(self.down2(first)))
        return self.head(torch.relu(self.join(torch.cat([first, up], 1))))


class ResNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.norm, self.last, self.head = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.norm(self.mid(torch.relu(self.stem(x)))))
        return self.head(self.last(x).mean((2, 3)))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(32, 12)
        self.recurrent = nn.LSTM(12, 10, num_layers=2, batch_first=True)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(torch.relu(self.embed(x)))[0])


class Uneven(nn.Module):
    """Reads the first channels only, in a way that ties nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[:, :4].mean(1)


OWN: dict[str, Any] = {"unet": UNet, "resnext": ResNeXt, "tagger": Tagger}
NETWORKS = [*FAMILIES, *OWN]


@cache
def captured(name: str) -> Captured:
    if name in FAMILIES:
        model, inputs = build(name)
    else:
        torch.manual_seed(0)
        model = OWN[name]().eval()
        inputs = (torch.randn(1, 7, 32),) if name == "tagger" else (torch.randn(1, 3, 16, 16),)
    return ep.capture(model, inputs)


def candidate(network: Captured, seed: int) -> Candidate:
    rng = np.random.default_rng(seed)
    kept = {
        group.name: tuple(
            sorted(rng.choice(group.units, int(rng.integers(1, group.units + 1)), replace=False).tolist())
        )
        for group in network.groups
    }
    return network.candidate(kept, dropped_blocks=[b.name for b in network.blocks if rng.random() < 0.3])


def widths(chosen: Candidate) -> dict[str, int]:
    return {name: len(units) for name, units in chosen.kept.items()}


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_sizes_are_those_of_the_pruned_graph(name: str, seed: int) -> None:
    network = captured(name)
    chosen = candidate(network, seed)
    pruned = network.prune(chosen, verify=False)
    dropped = frozenset(chosen.dropped_blocks)
    shapes = operator_shapes(network)
    kept = widths(chosen)
    there = {node.name: node for node in pruned.module.graph.nodes}
    predicted = operators_at(shapes, kept, dropped)
    assert predicted
    for node, concrete in predicted.items():
        value = there[node].meta["val"]
        values = value if isinstance(value, list | tuple) else [value]
        with at_batch(1):
            assert concrete.outputs == tuple(shape_of(v) for v in values), node
    gone = {shape.node for shape in shapes} - set(predicted)
    assert not gone & set(there)
    cost = pruned.cost()
    assert sum(s.macs.at(kept) for s in shapes if dropped.isdisjoint(s.blocks)) == cost.macs
    tensors = [t for t in trained(network) if dropped.isdisjoint(t.blocks)]
    assert sum(product(t.shape).at(kept) for t in tensors) == cost.params
    for name_, shape in ((n, sh) for s in shapes if dropped.isdisjoint(s.blocks) for n, sh in s.parameters):
        if name_ in dict(pruned.module.named_parameters()):
            real = dict(pruned.module.named_parameters())[name_].shape
            assert tuple(size.at(kept) for size in shape) == tuple(real), name_
    part = [p for s in shapes if dropped.isdisjoint(s.blocks) for p in s.parts()]
    assert sum(p.macs.at(kept) for p in part) == cost.macs


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_depend_on_two_groups_and_sum_up(name: str) -> None:
    network = captured(name)
    kept = widths(candidate(network, 3))
    for shape in operator_shapes(network):
        parts = shape.parts()
        if shape.kind not in ("recurrent", "grouped", "attention"):
            assert all(len(part.groups) <= 2 for part in parts), shape
        assert sum(part.params.at(kept) for part in parts) == shape.params.at(kept)
        assert sum(part.macs.at(kept) for part in parts) == shape.macs.at(kept)
        if shape.kind not in ("conv", "linear", "conv_transpose"):
            assert sum(part.elements.at(kept) for part in parts) == shape.elements.at(kept)
        assert all(len(piece.groups) <= 2 for piece in (*shape.macs.pieces(), *shape.elements.pieces()))


def test_what_a_benchmark_needs() -> None:
    shapes = {shape.node: shape for shape in operator_shapes(captured("resnext"))}
    grouped = shapes["conv2d_1"]
    assert grouped.kind == "grouped"
    assert grouped.activation == "silu"
    assert shapes["batch_norm"].folded
    assert shapes["batch_norm"].fused == "conv2d_1"
    assert shapes["silu"].fused == "conv2d_1"
    settings_ = dict(grouped.at().settings)
    assert settings_["kernel"] == (3, 3)
    assert settings_["padding"] == (1, 1)
    assert settings_["groups"] == 4
    assert settings_["bias"] is True
    assert grouped.at().parameters == ((16, 4, 3, 3), (16,))
    assert grouped.at({"stem": 2, "mid": 1}).parameters == ((4, 2, 3, 3), (4,))
    depthwise = next(s for s in operator_shapes(captured("mobilenet_v2")) if s.kind == "depthwise" and s.groups)
    group = depthwise.groups[0]
    assert dict(depthwise.at({group: 3}).settings)["groups"] == 3
    assert depthwise.at({group: 3}).parameters[0] == (3, 1, 3, 3)
    assert depthwise.activation == "relu6"


def test_attention_and_linear_name_their_sizes() -> None:
    shapes = operator_shapes(captured("vit"))
    attention = next(shape for shape in shapes if shape.kind == "attention")
    (heads,) = attention.dims["heads"].groups
    assert {name: size.at({heads: 3}) for name, size in attention.dims.items()} == {
        "batch": 1, "heads": 3, "queries": 17, "keys": 17, "head": 6, "value": 6,
    }  # fmt: skip
    first = next(shape for shape in shapes if shape.kind == "linear")
    assert first.dims["rows"].at() == 17
    assert first.dims["outputs"].at({heads: 3}) == 3 * 3 * 6


def test_a_concatenation_is_taken_apart_per_input() -> None:
    shapes = operator_shapes(captured("densenet"))
    cat = [shape for shape in shapes if shape.operator == "cat"][-1]
    assert len(cat.groups) == 4
    assert [part.groups for part in cat.parts()] == [(group,) for group in cat.groups]
    assert sum(part.elements.at() for part in cat.parts()) == 26 * 32 * 32
    assert [len(part.inputs) for part in cat.parts()] == [1, 1, 1, 1]


def test_sizes_that_depend_on_which_units_are_kept_say_so() -> None:
    network = ep.capture(Uneven().eval(), (torch.randn(1, 3, 8, 8),))
    assert [group.units for group in network.groups] == [8]
    shapes = operator_shapes(network)
    assert any(not shape.exact for shape in shapes)
    assert next(shape for shape in shapes if shape.kind == "conv").exact


def test_another_batch_is_brought_to_one() -> None:
    model, _ = build("vit")
    network = ep.capture(model, (torch.randn(4, 3, 32, 32),))
    one = [shape.at() for shape in operator_shapes(captured("vit"))]
    assert [shape.at() for shape in operator_shapes(network)] == one


def test_inner_groups() -> None:
    network = captured("mobilenet_v2")
    found = inner_groups(network)
    assert set(found) == {block.name for block in network.blocks}
    assert all(len(groups) == 1 for groups in found.values())
    assert found["blocks.2.body"] == ("blocks.2.body.0.0",)


def test_arithmetic_of_sizes() -> None:
    units = {"a": 4, "b": 3}
    a, b = Size.of({("a",): 2, (): 1}, units), Size.of({("b",): 1}, units)
    assert (a * b + 5).at() == 9 * 3 + 5
    assert (3 * a * a).at({"a": 1}) == 27
    assert [piece.groups for piece in (a * b).pieces()] == [("a", "b"), ("b",)]
    assert prod([a, b]) == a * b


def test_the_time_grows_with_the_graph_alone() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(4096 if i else 8, 4096) for i in range(3)))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    network = ep.capture(Wide().eval(), (torch.randn(1, 8),))
    assert network.groups
    start = time.perf_counter()
    operator_shapes(network)
    assert time.perf_counter() - start < 2
