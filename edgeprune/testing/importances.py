"""The contract of importances, as tests. Run it on your own:

    from edgeprune.testing.importances import ImportanceContract

    class TestMine(ImportanceContract):
        factory = staticmethod(MyImportance)

The built-in importances are held to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.importance.base import Importance, ImportanceContext, Scores

__all__ = ["ImportanceContract", "SmallNetwork", "small_groups"]


class SmallNetwork(nn.Module):
    """Convolution (4 channels), batch normalisation, convolution (6 channels), linear: 2x5x5 -> 3 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, 5, 5) -> (N, 3)."""
        x = functional.relu(self.norm(self.first(x)))
        logits: Tensor = self.head(functional.relu(self.second(x)).flatten(1))
        return logits


def small_groups() -> tuple[ChannelGroup, ...]:
    """The two channel groups of `SmallNetwork`, the first with a normalisation, the second without."""
    four, six = (np.arange(units, dtype=np.int64)[:, None] for units in (4, 6))
    affine = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    first = (
        Member("first.weight", 0, four, "producer"),
        Member("first.bias", 0, four, "producer"),
        *(Member(name, 0, four, "affine") for name in affine),
        Member("second.weight", 1, four, "consumer"),
    )
    second = (
        Member("second.weight", 0, six, "producer"),
        Member("second.bias", 0, six, "producer"),
        Member("head.weight", 1, six, "consumer"),
    )
    return ChannelGroup("first", 4, first), ChannelGroup("second", 6, second)


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(3):
        yield torch.randn(8, 2, 5, 5), torch.randint(0, 3, (8,))


def _loss(model: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


class ImportanceContract:
    """What searches rely on. `factory` is the importance's class, or any callable without arguments."""

    factory: Callable[[], Importance]

    def _network(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = SmallNetwork()
            for parameter in network.parameters():
                nn.init.normal_(parameter)
            return network.eval()

    def _score(self, groups: tuple[ChannelGroup, ...], seed: int = 0, network: nn.Module | None = None) -> Scores:
        context = ImportanceContext(seed=seed, batches=_batches, loss=_loss)
        return self.factory().score(network or self._network(), groups, context)

    def test_is_an_importance(self) -> None:
        assert isinstance(self.factory(), Importance)
        assert self.factory().needs_data in (True, False)

    def test_scores_every_unit_of_every_group(self) -> None:
        scores = self._score(small_groups())
        assert {name: values.shape for name, values in scores.items()} == {"first": (4,), "second": (6,)}
        for values in scores.values():
            assert values.dtype == np.float64
            assert np.isfinite(values).all()
            assert (values >= 0).all()
            assert len(set(values.tolist())) > 1  # it tells units apart

    def test_same_seed_same_scores_bit_for_bit(self) -> None:
        torch.manual_seed(1)
        first = self._score(small_groups(), seed=5)
        torch.manual_seed(2)  # what the surroundings drew does not matter
        second = self._score(small_groups(), seed=5)
        for name, values in first.items():
            np.testing.assert_array_equal(values, second[name])

    def test_order_and_choice_of_groups_do_not_matter(self) -> None:
        groups = small_groups()
        together = self._score(groups)
        backwards = self._score(groups[::-1])
        alone = self._score(groups[1:])
        np.testing.assert_array_equal(together["first"], backwards["first"])
        np.testing.assert_array_equal(together["second"], backwards["second"])
        np.testing.assert_array_equal(together["second"], alone["second"])

    def test_number_of_threads_does_not_matter(self) -> None:
        """Bit for bit, gradients included."""
        threads = torch.get_num_threads()
        scores = []
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                scores.append(self._score(small_groups()))
        finally:
            torch.set_num_threads(threads)
        for name, values in scores[0].items():
            np.testing.assert_array_equal(values, scores[1][name])

    def test_leaves_module_and_generator_as_they_were(self) -> None:
        network = self._network().train()
        network.get_parameter("first.weight").requires_grad_(False)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        generator = torch.get_rng_state()
        self._score(small_groups(), network=network)
        assert network.training
        assert torch.equal(torch.get_rng_state(), generator)
        assert not network.get_parameter("first.weight").requires_grad
        assert all(parameter.grad is None for parameter in network.parameters())
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_no_groups_no_scores(self) -> None:
        assert self._score(()) == {}
