from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import edgeprune as ep
from edgeprune.errors import TaskError, UsageError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from edgeprune.recovery import reconstruct as reconstruction
from edgeprune.recovery.reconstruct import reconstruct


class Product(nn.Module):
    """A matrix product with a parameter, with or without a bias in the same operator."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 3))
        self.offset = nn.Parameter(torch.randn(3)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix if self.offset is None else torch.addmm(self.offset, x, self.matrix)


def convolution(dims: int) -> type[nn.Module]:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]


def twins(consumer: nn.Module, dims: int, groups: int = 1) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Eight channels of which the second half (of each group) repeats the first: without it nothing is lost."""
    torch.manual_seed(0)
    first: nn.Module = nn.Linear(5, 8) if dims == 0 else convolution(dims)(5, 8, 1)
    with torch.no_grad():
        for parameter in first.parameters():
            halves = parameter.view(groups, 2, -1, *parameter.shape[1:])
            halves[:, 1] = halves[:, 0]
    inputs = torch.randn(6, 5, *[7] * dims)
    return nn.Sequential(first, nn.ReLU(), consumer).eval(), (inputs,)


def inputs_like(inputs: tuple[Tensor, ...], batches: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(32, *inputs[0].shape[1:], generator=generator) for _ in range(batches)]


def without_twins(captured: Captured) -> Pruned:
    group = captured.groups[0]
    return captured.prune(captured.candidate({group.name: range(group.units // 2)}))


CONSUMERS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "conv2d": (lambda: nn.Conv2d(8, 4, 3), 2, 1),
    "conv2d padded, strided": (lambda: nn.Conv2d(8, 4, 3, stride=2, padding=1), 2, 1),
    "conv2d dilated, uneven": (lambda: nn.Conv2d(8, 4, (3, 2), dilation=(1, 2), padding=(2, 0)), 2, 1),
    "conv2d same": (lambda: nn.Conv2d(8, 4, 4, padding="same"), 2, 1),
    "conv2d in groups": (lambda: nn.Conv2d(8, 6, 3, groups=2, padding=1), 2, 2),
    "conv2d without bias": (lambda: nn.Conv2d(8, 4, 3, bias=False), 2, 1),
    "conv1d": (lambda: nn.Conv1d(8, 4, 3, padding=1), 1, 1),
    "conv3d": (lambda: nn.Conv3d(8, 4, 2), 3, 1),
    "linear": (lambda: nn.Linear(8, 3), 0, 1),
    "addmm": (lambda: Product(True), 0, 1),
    "matmul": (lambda: Product(False), 0, 1),
    "flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(56, 3)), 1, 1),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_what_the_kept_inputs_can_say_is_regained(name: str) -> None:
    make, dims, groups = CONSUMERS[name]
    torch.manual_seed(3)
    model, inputs = twins(make(), dims, groups)
    captured = capture(model, inputs)
    pruned = without_twins(captured)
    unseen = torch.randn(5, *inputs[0].shape[1:])
    with torch.no_grad():
        wanted, plain = model(unseen), pruned.module(unseen)
        report = ep.reconstruct(pruned, captured, inputs_like(inputs))
        found = pruned.module(unseen)
    scale = float((plain - wanted).abs().max())
    assert scale > 0.1  # something was lost
    assert float((found - wanted).abs().max()) < 2e-3 * scale
    (layer,) = report.layers
    assert layer.replaced
    assert layer.error_before is not None
    assert layer.error_before > 0.05
    assert layer.error_after is not None
    assert layer.error_after < 1e-5


def test_samples_of_the_positions_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "_LEAST_ROWS", 0)
    monkeypatch.setattr(reconstruction, "_ROWS_PER_INPUT", 4)
    model, inputs = twins(nn.Conv2d(8, 4, 3), 2)
    captured = capture(model, inputs)
    pruned = without_twins(captured)
    error = reconstruct(pruned, captured, inputs_like(inputs)).layers[0].error_after
    assert error is not None
    assert error < 1e-5


def test_a_transposed_convolution_keeps_its_weight() -> None:
    model, inputs = twins(nn.ConvTranspose2d(8, 4, 3), 2)
    captured = capture(model, inputs)
    pruned = without_twins(captured)
    before = state(pruned)
    assert reconstruct(pruned, captured, inputs_like(inputs)).layers == ()
    same(state(pruned), before)


def state(pruned: Pruned) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in pruned.module.state_dict().items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def deep() -> tuple[nn.Sequential, Captured, Pruned, list[Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    captured = capture(model, (torch.randn(2, 6),))
    pruned = captured.prune(captured.uniform(0.5, "l1"))
    generator = torch.Generator().manual_seed(1)
    return model, captured, pruned, [torch.randn(400, 6, generator=generator) for _ in range(4)]


def test_each_layer_is_fitted_to_the_inputs_that_the_pruned_network_gives_it() -> None:
    model, captured, pruned, batches = deep()
    report = reconstruct(pruned, captured, batches)
    assert [layer.name for layer in report.layers] == ["2.weight", "4.weight"]
    assert report.replaced == 2
    values = state(pruned)
    fitted = torch.cat([batches[0], batches[2], batches[3]])  # the second one judges
    hidden = fitted
    for name in ("0", "2"):
        hidden = functional.linear(hidden, values[f"{name}.weight"], values[f"{name}.bias"]).relu()
    with torch.no_grad():
        wanted = model(fitted)
    rows = np.hstack([hidden.double().numpy(), np.ones((len(hidden), 1))])
    expected, *_ = np.linalg.lstsq(rows, wanted.double().numpy(), rcond=None)
    found = np.vstack([values["4.weight"].T.numpy(), values["4.bias"].numpy()])
    np.testing.assert_allclose(rows @ found, rows @ expected, atol=2e-3)
    with torch.no_grad():
        judged, dense = pruned.module(batches[1]), model(batches[1])
    error = (judged - dense).square().sum() / (dense - dense.mean(0)).square().sum()
    assert report.layers[1].error_after == pytest.approx(float(error), rel=1e-3)


def test_again_the_same_bit_for_bit() -> None:
    results = []
    for _ in range(2):
        _, captured, pruned, batches = deep()
        torch.seed()
        reconstruct(pruned, captured, batches, seed=5)
        results.append(state(pruned))
    same(*results)


def test_the_bias_alone_compensates_the_mean() -> None:
    model, captured, pruned, batches = deep()
    before = state(pruned)
    report = reconstruct(pruned, captured, batches, method="bias")
    after = state(pruned)
    assert report.replaced == 2
    assert torch.equal(after["2.weight"], before["2.weight"])
    fitted = torch.cat([batches[0], batches[2], batches[3]])
    with torch.no_grad():
        torch.testing.assert_close(pruned.module(fitted).mean(0), model(fitted).mean(0), rtol=1e-4, atol=1e-5)


def constant_channel() -> tuple[nn.Sequential, Captured, Pruned, list[Tensor]]:
    """The channel that goes is 3 everywhere; the convolution that reads it has no bias."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 2, bias=False)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 3
    captured = capture(model, (torch.randn(2, 2, 5, 5),))
    pruned = captured.prune(captured.candidate({captured.groups[0].name: [0, 2]}))
    generator = torch.Generator().manual_seed(1)
    return model, captured, pruned, [torch.randn(8, 2, 5, 5, generator=generator) for _ in range(3)]


def test_a_bias_is_added_where_there_was_none(tmp_path: Path) -> None:
    model, captured, pruned, batches = constant_channel()
    assert "2.bias" not in dict(pruned.module.named_parameters())
    reconstruct(pruned, captured, batches, method="bias")
    expected = 3 * model[2].weight[:, 1].detach().sum((1, 2))
    torch.testing.assert_close(dict(pruned.module.named_parameters())["2.bias"].detach(), expected)
    x = torch.randn(3, 2, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(pruned.module(x), model(x), rtol=1e-4, atol=1e-5)
        pruned.save(tmp_path / "small.pt2")
        torch.testing.assert_close(ep.load(tmp_path / "small.pt2").module(x), model(x), rtol=1e-4, atol=1e-5)
    ep.export(pruned, tmp_path / "small.onnx")  # checked in its runtime
    again = pruned.prune(Captured.candidate(pruned, {pruned.groups[0].name: [1]}))  # type: ignore[arg-type]
    assert again.module(x).shape == (3, 4, 4, 4)


class Interrupting:
    """Progress that is interrupted when the first layer is done."""

    @contextmanager
    def step(self, description: str, total: int | None = None) -> Iterator[Interrupting]:
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        assert note.startswith("2.weight: error ")
        raise KeyboardInterrupt

    def say(self, message: str) -> None:
        raise AssertionError(message)


@pytest.mark.parametrize("make", [deep, constant_channel])
def test_an_interruption_puts_everything_back(make: Callable[[], Any]) -> None:
    _, captured, pruned, batches = make()
    before, code, example = state(pruned), pruned.module.code, batches[0]
    outputs = pruned.module(example)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(pruned, captured, batches, progress=Interrupting())
    same(state(pruned), before)
    assert pruned.module.code == code
    assert torch.equal(pruned.module(example), outputs)


def test_a_layer_stays_where_held_back_data_says_so() -> None:
    """What is removed equals what is kept in the fitted batches, and is its opposite in the one that judges."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 3)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    captured = capture(model, (torch.randn(2, 2),))
    pruned = captured.prune(captured.candidate({captured.groups[0].name: [0]}))
    before = state(pruned)
    x = torch.randn(64, 1)
    same_sign, opposite = torch.cat([x, x], 1), torch.cat([x, -x], 1)
    (layer,) = reconstruct(pruned, captured, [same_sign, opposite, same_sign]).layers
    assert not layer.replaced
    assert layer.error_after == layer.error_before
    assert "did not fall" in layer.note
    same(state(pruned), before)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Linear(4, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.shared(self.first(x).relu()).relu()).sum(1)


def test_a_layer_that_is_applied_twice_stays_as_it_is() -> None:
    torch.manual_seed(0)
    captured = capture(Twice().eval(), (torch.randn(2, 4),))
    pruned = captured.prune(captured.uniform(0.5, "l1"))
    before = state(pruned)
    report = reconstruct(pruned, captured, [torch.randn(8, 4) for _ in range(2)])
    assert [layer.note for layer in report.layers] == ["its weight is shared"] * 2
    assert [layer.error_before for layer in report.layers] == [None, None]
    same(state(pruned), before)


def test_loss_says_what_the_inputs_are() -> None:
    _, captured, pruned, batches = deep()
    labelled = [{"x": x, "y": torch.zeros(len(x))} for x in batches]
    reconstruct(pruned, captured, labelled, loss=lambda model, batch: model(batch["x"]).mean())
    _, captured, plain, batches = deep()
    reconstruct(plain, captured, batches)
    same(state(pruned), state(plain))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "there were none"),
        ([torch.zeros(3, 6)], "there was one"),
        ([(torch.zeros(3, 6), torch.zeros(3))] * 2, "a batch has 2 parts, but the model takes 1"),
    ],
)
def test_batches_that_cannot_be_used_are_refused(batches: list[Any], message: str) -> None:
    _, captured, pruned, _ = deep()
    before = state(pruned)
    with pytest.raises(TaskError, match=message):
        reconstruct(pruned, captured, batches)
    same(state(pruned), before)


def test_another_model_and_another_method_are_refused() -> None:
    _, captured, pruned, batches = deep()
    with pytest.raises(UsageError, match="no reconstruction 'magic'"):
        reconstruct(pruned, captured, batches, method="magic")  # type: ignore[arg-type]
    _, other, _, _ = constant_channel()
    with pytest.raises(UsageError, match="was not pruned from"):
        reconstruct(pruned, other, batches)


def test_the_dense_model_and_its_mode_stay() -> None:
    _, captured, pruned, batches = deep()
    captured.module.train()
    before = copy.deepcopy(captured.module.state_dict())
    reconstruct(pruned, captured, batches)
    assert captured.module.training
    assert not pruned.module.training
    for name, value in captured.module.state_dict().items():
        assert torch.equal(value, before[name])
