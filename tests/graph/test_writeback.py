"""Pruned weights in the user's own module: it computes the same, or is refused and left as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import UsageError
from edgeprune.graph.capture import capture
from edgeprune.recovery.reconstruct import reconstruct
from tests.graph.models import build


def state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Tensors by identity, and every plain attribute of every layer."""
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    plain = (int, float, tuple, str)
    return tensors, {n: {k: v for k, v in vars(m).items() if isinstance(v, plain)} for n, m in model.named_modules()}


@pytest.mark.parametrize("family", ["vgg", "mobilenet_v2", "densenet", "shufflenet", "mlp"])
def test_the_module_computes_what_the_pruned_graph_does(family: str) -> None:
    model, inputs = build(family)
    model.train()
    captured = capture(model, inputs)
    pruned = captured.prune(captured.uniform(0.5))
    pruned.apply_to(model)
    assert model.training
    model.eval()
    x = torch.randn(3, *inputs[0].shape[1:])
    torch.testing.assert_close(model(x), pruned.module.eval()(x), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in model.parameters()) == pruned.cost().params
    for layer in model.modules():  # what the layers say of themselves
        if isinstance(layer, nn.Conv2d):
            assert (layer.out_channels, layer.in_channels // layer.groups) == tuple(layer.weight.shape[:2])
        if isinstance(layer, nn.Linear):
            assert (layer.out_features, layer.in_features) == tuple(layer.weight.shape)
    shared = {id(p) for p in model.parameters()} & {id(p) for p in pruned.module.parameters()}
    assert not shared
    again = capture(model, inputs)
    assert {g.name: g.units for g in again.groups} == {g.name: g.units for g in pruned.groups}


def test_inner_channels_of_a_residual_network_are_written_back() -> None:
    model, inputs = build("resnet")
    captured = capture(model, inputs)
    inner = {g.name: range(g.units // 2) for g in captured.groups if g.name.endswith("conv1")}
    pruned = captured.prune(captured.candidate(inner))
    pruned.apply_to(model)
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model.eval()(x), pruned.module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        # the padding of its shortcuts is a number, and so is the count of heads
        ("resnet", r"models\.py:\d+, in `return F\.relu\(x \+ y\)`: the pruned sizes do not fit: The size of tensor"),
        ("vit", r"reshape makes \(2, 17, 3, 4, 3\) instead of \(2, 17, 3, 2, 6\) at File .*models\.py.*self\.heads"),
    ],
)
def test_a_size_in_the_code_is_named_and_the_model_left_as_it_was(family: str, message: str) -> None:
    model, inputs = build(family)
    captured = capture(model, inputs)
    identities = [id(p) for p in model.parameters()]
    tensors, attributes = state(copy.deepcopy(model))
    with pytest.raises(UsageError, match=message):
        captured.prune(captured.uniform(0.5)).apply_to(model)
    found, plain = state(model)
    assert [id(p) for p in model.parameters()] == identities
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert plain == attributes


def test_dropped_blocks_and_other_models_are_refused() -> None:
    model, inputs = build("resnet")
    captured = capture(model, inputs)
    with pytest.raises(UsageError, match="blocks were dropped"):
        captured.prune(captured.candidate(dropped_blocks=["blocks.0"])).apply_to(model)
    with pytest.raises(UsageError, match="has no parameter or buffer"):
        captured.prune(captured.uniform(0.5)).apply_to(nn.Linear(3, 4))


def test_shared_layers_stay_shared() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.again = nn.Linear(8, 8)
            self.again.weight = self.body.weight

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(torch.relu(self.again(torch.relu(self.body(torch.relu(self.stem(x)))))))
            return result

    torch.manual_seed(0)
    model = Twice()
    captured = capture(model, (torch.randn(2, 6),))
    pruned = captured.prune(captured.uniform(0.5))
    pruned.apply_to(model)
    assert model.body.weight is model.again.weight
    assert model.body.weight.shape == (4, 4)
    assert (model.again.in_features, model.again.out_features) == (4, 4)
    x = torch.randn(3, 6)
    torch.testing.assert_close(model(x), pruned.module(x))


def test_a_bias_that_reconstruction_added_is_written_back_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
    ).eval()
    captured = capture(model, torch.randn(4, 3, 9, 9))
    pruned = captured.prune(captured.uniform(0.25))
    reconstruct(pruned, captured, [(torch.randn(16, 3, 9, 9),) for _ in range(4)])
    pruned.apply_to(model)
    assert model[2].bias is not None
    assert model[2].weight.shape == (6, 6, 3, 3)
    x = torch.randn(5, 3, 9, 9)
    torch.testing.assert_close(model(x), pruned.module(x))
