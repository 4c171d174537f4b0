from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from edgeprune.errors import TaskError
from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.importance.base import ImportanceContext
from edgeprune.importance.gradient import Fisher, Taylor

INDICES = np.arange(3, dtype=np.int64)[:, None]


def layers() -> nn.Sequential:
    """y = c · (A x) with A of three units, c = (1, 10, -1)."""
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.1, 0.1], [3.0, -3.0]]))
        module[1].weight.copy_(torch.tensor([[1.0, 10.0, -1.0]]))
    return module


def plain_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).sum()


GROUP = ChannelGroup("g", 3, (Member("0.weight", 0, INDICES, "producer"), Member("1.weight", 1, INDICES, "consumer")))


def test_is_the_magnitude_of_weight_times_gradient_per_unit() -> None:
    # d loss / d A[u, i] = c[u] x[i], so a unit's sum is c[u] (A x)[u]: x = (1, 1) gives 3, 2, 0; x = (2, 0) 2, 2, -6.
    data = [torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 0.0]])]
    context = ImportanceContext(batches=lambda: data, loss=plain_loss)
    scores = Taylor().score(layers(), [GROUP], context)
    expected = np.array([3 + 2, 2 + 2, 0 + 6]) / 2  # magnitudes averaged over the batches
    assert_allclose(scores["g"], expected / expected.mean(), rtol=1e-6)


def test_fisher_is_half_the_mean_square_of_each_weight_times_its_gradient() -> None:
    # (A[u, i] c[u] x[i])² per weight: x = (1, 1) gives 1 + 4, 1 + 1, 9 + 9; x = (2, 0) gives 4, 4, 36.
    data = [torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 0.0]])]
    context = ImportanceContext(batches=lambda: data, loss=plain_loss)
    scores = Fisher(normalise="none").score(layers(), [GROUP], context)
    assert_allclose(scores["g"], np.array([5 + 4, 2 + 4, 18 + 36]) / 2 / 2, rtol=1e-6)
    consumers = Fisher(members="consumers", normalise="none").score(layers(), [GROUP], context)
    # (c[u] (A x)[u])²: A x = (3, 0.2, 0) and (2, 0.2, 6).
    assert_allclose(consumers["g"], np.array([9 + 4, 4 + 4, 0 + 36]) / 2 / 2, rtol=1e-6)


def test_fisher_is_the_loss_of_a_quadratic_to_second_order() -> None:
    # For a Gaussian likelihood the Fisher diagonal is the Hessian's: loss ½ (w x)² with x drawn from a unit Gaussian
    # has h = 1 and, sampled with targets from the model, a mean squared gradient of 1.
    torch.manual_seed(0)
    weight = torch.tensor([[0.5], [1.0], [2.0]])
    module = nn.Linear(1, 3, bias=False)
    with torch.no_grad():
        module.weight.copy_(weight)
    data = [(torch.ones(1, 1), torch.randn(1, 3)) for _ in range(4000)]
    context = ImportanceContext(
        batches=lambda: data,
        loss=lambda m, b: ((m(b[0]) - (m(b[0]).detach() + b[1])) ** 2).sum() / 2,
        max_batches=4000,
    )
    group = ChannelGroup("g", 3, (Member("weight", 0, INDICES, "producer"),))
    scores = Fisher(normalise="none").score(module, [group], context)["g"]
    assert_allclose(scores, (weight[:, 0] ** 2 / 2).numpy(), rtol=0.1)


def test_taylor_of_producers_where_it_is_asked_for() -> None:
    # Weight 1 is the gate; asked for producers the score is that of the linear layer behind nothing at all.
    module = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3, eps=0.0))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.5, 0.0], [3.0, -3.0]]))
        module[1].bias.copy_(torch.tensor([10.0, 20.0, 30.0]))
    members = (Member("0.weight", 0, INDICES, "producer"), Member("1.weight", 0, INDICES, "affine"),
               Member("1.bias", 0, INDICES, "affine"))  # fmt: skip
    group = ChannelGroup("g", 3, members)
    context = ImportanceContext(batches=lambda: [torch.tensor([[1.0, 1.0]])], loss=plain_loss)
    gates = Taylor(normalise="none").score(module, [group], context)["g"]
    producers = Taylor(members="producers", normalise="none").score(module, [group], context)["g"]
    assert_allclose(gates, [3 + 10, 0.5 + 20, 0 + 30], rtol=1e-6)
    assert_allclose(producers, [3, 0.5, 0], rtol=1e-6, atol=1e-6)


def test_predicts_the_change_of_a_linear_loss() -> None:
    module, x = layers(), torch.tensor([[0.5, -1.5]])
    score = Taylor().score(module, [GROUP], ImportanceContext(batches=lambda: [x], loss=plain_loss))["g"]
    changes = []
    with torch.no_grad():
        for unit in range(3):
            cut = layers()
            cut[1].weight[:, unit] = 0
            changes.append(abs(float(module(x).sum() - cut(x).sum())))
    assert_allclose(score, np.array(changes) / np.mean(changes), rtol=1e-6)


def test_normalisation_is_the_gate_where_there_is_one() -> None:
    # Unit u adds g[u] x̂[u] + b[u] to the loss, with running mean 0 and variance 1: the change when it goes away.
    module = nn.Sequential(nn.BatchNorm1d(3, eps=0.0), nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        module[0].bias.copy_(torch.tensor([0.5, -4.0, 0.0]))
        module[1].weight.fill_(1.0)
    members = tuple(Member(name, 0, INDICES, "affine") for name in ("0.weight", "0.bias", "0.running_mean"))
    group = ChannelGroup("g", 3, (*members, Member("1.weight", 1, INDICES, "consumer")))
    context = ImportanceContext(batches=lambda: [torch.tensor([[1.0, 1.0, 1.0]])], loss=plain_loss)
    scores = Taylor().score(module, [group], context)
    assert_allclose(scores["g"], np.array([1.5, 2.0, 3.0]) / (6.5 / 3), rtol=1e-6)


def test_max_batches_limits_the_data() -> None:
    drawn = []

    def batches():
        for i in range(10):
            drawn.append(i)
            yield torch.ones(1, 2)

    Taylor().score(layers(), [GROUP], ImportanceContext(batches=batches, loss=plain_loss, max_batches=3))
    assert drawn == [0, 1, 2]


def test_parameter_that_the_loss_does_not_reach_scores_zero() -> None:
    module = nn.ModuleDict({"used": nn.Linear(2, 3), "idle": nn.Linear(2, 3)})
    idle = ChannelGroup("idle", 3, (Member("idle.weight", 0, INDICES, "producer"),))
    context = ImportanceContext(batches=lambda: [torch.ones(1, 2)], loss=lambda m, b: m["used"](b).sum())
    assert Taylor().score(module, [idle], context)["idle"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("part", ["batches", "loss"])
def test_missing_task_part(part: str) -> None:
    given = {"batches": lambda: [torch.ones(1, 2)], "loss": plain_loss} | {part: None}
    with pytest.raises(TaskError, match="'taylor' needs data") as caught:
        Taylor().score(layers(), [GROUP], ImportanceContext(**given))
    assert "train_batches()" in (caught.value.hint or "")


def test_no_batches() -> None:
    with pytest.raises(TaskError, match="gave no batch"):
        Taylor().score(layers(), [GROUP], ImportanceContext(batches=list, loss=plain_loss))


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (lambda m, b: m(b).sum().item(), "float"),
        (lambda m, b: m(b).sum().detach(), r"tensor of shape \(\)"),
        (lambda m, b: m(b.repeat(2, 1)), r"tensor of shape \(2, 1\)"),
    ],
)
def test_unusable_loss(loss, what: str) -> None:
    with pytest.raises(TaskError, match=f"returned .*{what}.*not a scalar tensor with a gradient"):
        Taylor().score(layers(), [GROUP], ImportanceContext(batches=lambda: [torch.ones(1, 2)], loss=loss))


def test_mode_and_gradients_are_given_back_after_an_error() -> None:
    module = layers().train()
    module[0].weight.requires_grad_(False)

    def broken(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Taylor().score(module, [GROUP], ImportanceContext(batches=lambda: [torch.ones(1, 2)], loss=broken))
    assert module.training
    assert not module[0].weight.requires_grad
    assert math.isfinite(module[0].weight.sum().item())
