from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeprune.errors import TaskError
from edgeprune.graph.capture import capture
from edgeprune.recovery.batchnorm import reestimate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5)).eval()


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 2, 4, 4, generator=generator) * 3 + 1 for _ in range(4)]


def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


def averages(model: nn.Sequential, data: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over the batches of each channel's mean and unbiased variance, by hand."""
    with torch.no_grad():
        channels = [model[0](x).double().transpose(0, 1).flatten(1) for x in data]
    return torch.stack([c.mean(1) for c in channels]).mean(0), torch.stack([c.var(1) for c in channels]).mean(0)


@pytest.mark.parametrize("captured", [False, True])
def test_statistics_are_the_average_of_the_batches_own(captured: bool) -> None:
    model = network()
    mean, variance = averages(model, batches())
    module = capture(model, (torch.zeros(2, 2, 4, 4),)).module if captured else model
    assert reestimate(module, batches(), loss) == 4
    assert not module.training
    buffers = dict(module.named_buffers())
    torch.testing.assert_close(buffers["1.running_mean"].double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(buffers["1.running_var"].double(), variance, rtol=1e-5, atol=1e-6)


def test_max_batches() -> None:
    model = network()
    mean, _ = averages(model, batches()[:2])
    assert reestimate(model, batches(), loss, max_batches=2) == 2
    torch.testing.assert_close(model[1].running_mean.double(), mean, rtol=1e-5, atol=1e-6)


def test_weights_stay_as_they_are() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.named_parameters()}
    reestimate(model, batches(), loss)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None


def test_same_result_again_in_spite_of_dropout() -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(2))
        torch.seed()
        reestimate(model, batches(), loss)
        results.append(model[1].running_var)
    assert torch.equal(results[0], results[1])


def test_nothing_to_do_without_batch_norm() -> None:
    def forbidden(model: nn.Module, batch: object) -> torch.Tensor:
        raise AssertionError("the model has no statistics to estimate")

    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False)).train()
    assert reestimate(module, [torch.zeros(2, 2)], forbidden) == 0
    assert not module.training


def test_no_batches_is_an_error_and_keeps_the_statistics() -> None:
    model = network()
    with pytest.raises(TaskError, match="gave no batch"):
        reestimate(model, [], loss)
    assert model[1].running_var.tolist() == [1, 1, 1]


def test_an_interruption_keeps_the_statistics() -> None:
    model = network()

    def interrupted(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        module(batch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reestimate(model, batches(), interrupted)
    assert model[1].running_mean.tolist() == [0, 0, 0]
    assert not model.training
