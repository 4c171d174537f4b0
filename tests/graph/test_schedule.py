"""The predicted peak of activation memory, against the liveness of graphs that were really pruned."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import edgeprune as ep
from edgeprune.graph.schedule import Schedule, schedule
from tests.graph.test_shapes import NETWORKS, candidate, captured, widths


@cache
def plan_of(name: str, fused: bool) -> Schedule:
    return schedule(captured(name), fused=fused)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_the_peak_is_that_of_the_pruned_graph(name: str, seed: int) -> None:
    network = captured(name)
    chosen = candidate(network, seed)
    pruned = network.prune(chosen, verify=False)
    plan = plan_of(name, fused=False)
    assert plan.peak(widths(chosen), chosen.dropped_blocks) == pruned.cost().peak_activation_bytes
    lean = plan_of(name, fused=True)
    assert lean.peak(widths(chosen), chosen.dropped_blocks) <= plan.peak(widths(chosen), chosen.dropped_blocks)


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


def test_an_activation_after_a_convolution_holds_no_second_tensor() -> None:
    network = ep.capture(Chain().eval(), (torch.randn(1, 1, 8, 8),))
    image = 64 * 4
    assert schedule(network, fused=False).peak() == 8 * image
    assert schedule(network).peak() == 6 * image
    assert schedule(network).peak({"first": 1}) == 3 * image


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.body(x))


def test_a_dropped_block_takes_its_tensors_but_not_what_skips_it() -> None:
    network = ep.capture(Residual().eval(), (torch.randn(1, 1, 8, 8),))
    image = 64 * 4
    plan = schedule(network)
    assert plan.peak() == (4 + 8 + 4) * image
    assert plan.peak({"body.0": 2}) == (4 + 2 + 4) * image
    assert plan.peak(dropped=["body"]) == (4 + 1) * image


def test_only_steps_that_can_be_the_largest_are_kept() -> None:
    plan = schedule(captured("mobilenet_v2"))
    assert 1 <= len(plan.steps) < len(captured("mobilenet_v2").module.graph.nodes) / 4
    assert all(len(tensor.bytes.pieces()) == 1 for step in plan.steps for tensor in step.live if tensor.bytes.groups)
