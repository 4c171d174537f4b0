from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import TaskError
from edgeprune.graph.capture import capture
from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.importance.activation import NonZero, Wanda
from edgeprune.importance.base import ImportanceContext
from edgeprune.importance.magnitude import L1


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def step(self, description: str, total: int | None = None):
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        pass

    def say(self, message: str) -> None:
        self.lines.append(message)


def context(*batches: Tensor, said: Said | None = None) -> ImportanceContext:
    kwargs = {} if said is None else {"progress": said}
    return ImportanceContext(batches=lambda: batches, loss=lambda m, b: m(b).sum(), **kwargs)


def two_layers() -> nn.Sequential:
    """h = relu(x) of three units by an identity, y = C h with columns of absolute sum 3, 7 and 5."""
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(3))
        module[2].weight.copy_(torch.tensor([[1.0, -3.0, 5.0], [2.0, 4.0, 0.0]]))
    return module


BATCHES = torch.tensor([[3.0, 1.0, -1.0], [4.0, -1.0, -1.0]]), torch.tensor([[0.0, -1.0, 2.0], [0.0, 1.0, -2.0]])


@pytest.mark.parametrize("captured", [False, True], ids=["module", "captured"])
def test_wanda_is_weight_times_norm_of_the_activation(*, captured: bool) -> None:
    # Squares of what the second layer sees: 25, 2 and 4 over four examples.
    graph = capture(two_layers(), (BATCHES[0],))
    module = graph.module if captured else two_layers()
    scores = Wanda(normalise="none").score(module, graph.groups, context(*BATCHES))
    expected = np.array([3, 7, 5]) * np.sqrt(np.array([25, 2, 4]) / 4)
    assert_allclose(scores[graph.groups[0].name], expected, rtol=1e-7)


def test_apoz_is_the_share_of_activations_that_are_not_zero() -> None:
    graph = capture(two_layers(), (BATCHES[0],))
    scores = NonZero().score(graph.module, graph.groups, context(*BATCHES))
    assert scores[graph.groups[0].name].tolist() == [2 / 4, 2 / 4, 1 / 4]


def test_convolution_counts_positions_and_groups() -> None:
    # Four channels go into a convolution of two groups: index i of its dimension 1 is channel i and channel 2 + i.
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 4.0]).view(2, 2, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return functional.conv2d(x, weight=self.weight, groups=2)

    x = torch.zeros(1, 4, 2, 2)
    x[0, :, 0, 0] = torch.tensor([2.0, 4.0, 6.0, 8.0])
    x[0, 3, 1, 1] = 8.0
    group = ChannelGroup("g", 2, (Member("weight", 1, np.array([[0], [1]]), "consumer"),))
    scores = Wanda(normalise="none").score(Grouped(), [group], context(x))
    # Norms over the four positions: 1, 2, 3 and sqrt(32). Index 0: 1·1 + 3·3, index 1: 2·2 + 4·sqrt(32).
    assert_allclose(scores["g"], [10, 4 + 4 * np.sqrt(32)], rtol=1e-7)
    assert_allclose(NonZero().score(Grouped(), [group], context(x))["g"], [1 / 4, 3 / 8], rtol=1e-7)


def test_unbatched_input_has_its_channels_first() -> None:
    module = nn.Conv1d(2, 1, 1, bias=False)
    nn.init.ones_(module.weight)
    group = ChannelGroup("g", 2, (Member("weight", 1, np.array([[0], [1]]), "consumer"),))
    scores = Wanda(normalise="none").score(module, [group], context(torch.tensor([[3.0, 3.0, 3.0], [0.0, 0.0, 6.0]])))
    assert_allclose(scores["g"], [3, np.sqrt(12)], rtol=1e-7)


@pytest.mark.parametrize(("kind", "name"), [(Wanda, "wanda"), (NonZero, "apoz")])
def test_group_without_such_consumer_is_scored_by_l1_and_it_is_said(kind, name: str) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 3)
            self.second = nn.Parameter(torch.randn(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x) @ self.second

    torch.manual_seed(0)
    graph = capture(Product(), (torch.randn(2, 2),))
    said = Said()
    scores = kind().score(graph.module, graph.groups, context(torch.randn(2, 2), said=said))
    expected = L1(normalise=kind().normalise).score(graph.module, graph.groups, ImportanceContext())
    assert scores["first"].tolist() == expected["first"].tolist()
    assert said.lines == [f"{name}: 1 of 1 groups feed no convolution or linear layer and are scored by l1: first"]


def test_data_are_needed() -> None:
    with pytest.raises(TaskError, match="importance 'wanda' needs data"):
        Wanda().score(two_layers(), (), ImportanceContext())
