"""Six families right through: capture, coupling, surgery, verification, saving; values against the user's own model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from edgeprune.graph.storage import load
from tests.graph.models import FAMILIES, build

UNITS = {  # by hand from the definitions
    "resnet": {
        "stem.0": 8,
        "blocks.0.conv1": 8,
        "blocks.1.conv1": 16,
        "blocks.1.conv2": 8,
        "blocks.2.conv1": 16,
        "blocks.3.conv1": 32,
        "blocks.3.conv2": 16,
    },
    "vgg": {"features.0.0": 12, "features.2.0": 16, "features.4": 20, "head.0": 24},
    "mobilenet_v2": {
        "stem.0": 8,
        "blocks.0.body.0.0": 8,
        "blocks.1.body.0.0": 32,
        "blocks.1.body.2.0": 12,
        "blocks.2.body.0.0": 48,
        "blocks.3.body.0.0": 48,
        "blocks.3.body.2.0": 16,
        "head.0.0": 32,
    },
    "densenet": {
        "stem": 8,
        "layers.0.conv1": 24,
        "layers.0.conv2": 6,
        "layers.1.conv1": 24,
        "layers.1.conv2": 6,
        "layers.2.conv1": 24,
        "layers.2.conv2": 6,
        "transition.2": 12,
    },
    "vit": {"patch": 24, "blocks.0.qkv": 4, "blocks.0.mlp.0": 96, "blocks.1.qkv": 4, "blocks.1.mlp.0": 96},
    "mlp": {"layers.1": 32, "layers.3": 16},
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, torch.nn.Module, Captured]:
    model, inputs = build(request.param)
    return request.param, model, capture(model, inputs)


def random_candidate(captured: Captured, ratio: float, seed: int) -> dict[str, list[int]]:
    rng = np.random.default_rng(seed)
    return {
        group.name: sorted(rng.choice(group.units, max(1, round(group.units * (1 - ratio))), replace=False).tolist())
        for group in captured.groups
    }


def test_captured_graph_computes_the_model_at_any_batch(family: tuple[str, torch.nn.Module, Captured]) -> None:
    _, model, captured = family
    for batch in (1, 3):
        x = torch.randn(batch, 3, 32, 32)
        torch.testing.assert_close(captured.module(x), model(x), rtol=1e-5, atol=1e-6)


def test_groups_are_those_of_the_definition(family: tuple[str, torch.nn.Module, Captured]) -> None:
    name, _, captured = family
    if name in UNITS:
        assert {group.name: group.units for group in captured.groups} == UNITS[name]
    assert [group.frozen for group in captured.frozen] == ["is the model's output"]


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_random_candidates_equal_their_reference(family: tuple[str, torch.nn.Module, Captured], ratio: float) -> None:
    _, _, captured = family
    for seed in range(3):
        kept = random_candidate(captured, ratio, seed)
        pruned = captured.prune(captured.candidate(kept))
        assert pruned.verification is not None
        assert pruned.verification.relative_error <= 1e-9
        assert {g.name: g.units for g in pruned.groups} == {
            name: len(units)
            for name, units in kept.items()
            if len(units) > 1  # a last unit cannot go
        } or ratio == 0.9
        assert pruned.cost().params < captured.cost().params
        assert pruned.module(torch.randn(5, 3, 32, 32)).shape == (5, 10)


def test_pruning_leaves_the_dense_graph_alone_and_shares_nothing(family: tuple[str, torch.nn.Module, Captured]) -> None:
    _, _, captured = family
    x = torch.randn(2, 3, 32, 32)
    before = captured.module(x)
    pruned = captured.prune(captured.uniform(0.5, "l1"))
    with torch.no_grad():
        for parameter in pruned.module.parameters():
            parameter.zero_()
    torch.testing.assert_close(captured.module(x), before, rtol=0, atol=0)


def test_a_pruned_graph_trains(family: tuple[str, torch.nn.Module, Captured]) -> None:
    _, _, captured = family
    module = captured.prune(captured.uniform(0.5)).module
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    module.train()
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_pruned_graph_is_pruned_again(family: tuple[str, torch.nn.Module, Captured]) -> None:
    _, _, captured = family
    once = captured.prune(captured.uniform(0.25))
    twice = once.prune(once.uniform(0.25))
    assert twice.verification is not None
    assert twice.verification.relative_error <= 1e-9
    assert twice.cost().params < once.cost().params


LOADER = """
import sys, torch, edgeprune
loaded = edgeprune.load(sys.argv[1])
assert not [name for name in sys.modules if "models" in name and "tests" in name]
inputs, expected = torch.load(sys.argv[2], weights_only=True)
for x, y in zip(inputs, expected):
    torch.testing.assert_close(loaded.module(x), y, rtol=1e-5, atol=1e-6)
print(len(loaded.groups))
"""


def test_a_saved_graph_loads_where_the_class_is_unknown(
    family: tuple[str, torch.nn.Module, Captured], tmp_path: Path
) -> None:
    _, _, captured = family
    pruned = captured.prune(captured.uniform(0.5))
    pruned.save(tmp_path / "small.pt2")
    inputs = [torch.randn(1, 3, 32, 32), torch.randn(4, 3, 32, 32)]
    with torch.no_grad():
        torch.save((inputs, [pruned.module(x) for x in inputs]), tmp_path / "values.pt")
    command = [sys.executable, "-c", LOADER, str(tmp_path / "small.pt2"), str(tmp_path / "values.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(pruned.groups)


def test_a_loaded_graph_has_its_mode_switch(tmp_path: Path) -> None:
    model, inputs = build("vgg")
    captured = capture(model, inputs)
    path = tmp_path / "dense.pt2"
    Pruned(captured.module, inputs, captured.candidate({}), None).save(path)
    loaded = load(path)
    x = torch.randn(4, 3, 32, 32)
    statistics = loaded.module.get_buffer("features.0.1.running_mean")
    before = statistics.clone()
    loaded.module.eval()(x)
    assert torch.equal(statistics, before)
    loaded.module.train()(x)
    assert not torch.equal(statistics, before)
