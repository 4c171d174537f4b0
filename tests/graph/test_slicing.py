"""Slicing of parameters: in blocks of rows, several at once, always the values that indexing gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.labels import Axis, Labels, Left
from edgeprune.graph.surgery import slice_tensor


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def kept(size: int, seed: int) -> list[int]:
    """Two thirds of the indices, ascending."""
    return sorted(np.random.default_rng(seed).permutation(size)[: max(1, 2 * size // 3)].tolist())


def sliced(tensor: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The tensor without a third of the indices of each of the dimensions, by the surgery and by indexing."""
    axes, keep, expected = [], [True], tensor
    for dim in dims:
        chosen = kept(tensor.shape[dim], dim)
        axes.append(Axis((dim,), np.arange(len(keep), len(keep) + tensor.shape[dim])))
        keep += np.isin(np.arange(tensor.shape[dim]), chosen).tolist()
        expected = expected[(slice(None),) * dim + (chosen,)]
    return slice_tensor(tensor, Labels(tuple(tensor.shape), tuple(axes)), Left(np.array(keep))), expected


SHAPES = ((300, 500), (512, 128, 3, 3), (7, 90_000), (90_000, 3), (40, 30, 20, 10), (2, 3), (6, 9, 0))
CHOICES = ((0,), (1,), (0, 1))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("shape", "dims"), list(product(SHAPES, CHOICES)), ids=str)
def test_the_values_are_those_of_indexing(shape: tuple[int, ...], dims: tuple[int, ...], count: int) -> None:
    torch.set_num_threads(count)
    tensor = torch.randn(shape)
    found, expected = sliced(tensor, dims)
    assert torch.equal(found, expected)
    assert found.is_contiguous()
    assert found.untyped_storage().nbytes() == found.numel() * 4  # its own memory, and no more


@pytest.mark.parametrize("dims", [(0, 2), (1, 2, 3), (0, 1, 2, 3), (3,)], ids=str)
def test_any_dimensions(dims: tuple[int, ...]) -> None:
    found, expected = sliced(torch.randn(60, 20, 15, 11), dims)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.int8, torch.bool])
def test_any_type(kind: torch.dtype) -> None:
    found, expected = sliced(torch.randint(0, 2, (400, 300)).to(kind), (0, 1))
    assert found.dtype is kind
    assert torch.equal(found, expected)


@pytest.mark.parametrize("tensor", [torch.randn(500, 400).t(), torch.randn(900, 800)[::2, ::2]], ids=["t", "strided"])
def test_any_strides(tensor: Tensor) -> None:
    found, expected = sliced(tensor, (0, 1))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (300, 200, 3, 3), (6, 4, 1, 1), (8, 6, 2, 3, 3)], ids=str)
def test_channels_stay_last(shape: tuple[int, ...]) -> None:
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    found, expected = sliced(torch.randn(shape).contiguous(memory_format=last), (0, 1))
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=last)
    assert found.untyped_storage().nbytes() == found.numel() * 4


def test_a_network_with_channels_last_keeps_them_so() -> None:
    net = (
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval().to(memory_format=torch.channels_last)
    )
    captured = capture(net, torch.randn(1, 3, 8, 8).contiguous(memory_format=torch.channels_last))
    pruned = captured.prune(captured.uniform(0.5)).module
    shapes = {tuple(weight.shape) for weight in pruned.parameters() if weight.dim() == 4}
    assert shapes == {(8, 3, 3, 3), (8, 8, 3, 3)}
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in pruned.parameters() if w.dim() == 4)


def test_what_is_pruned_in_inference_mode_can_be_trained() -> None:
    captured = capture(
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval(), torch.randn(1, 3, 8, 8)
    )
    with torch.inference_mode():
        pruned = captured.prune(captured.uniform(0.5)).module
    pruned(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in pruned.parameters())


def test_what_loses_nothing_is_copied() -> None:
    tensor = torch.randn(30, 20)
    copy = slice_tensor(tensor, Labels((30, 20), (Axis((0,), np.arange(1, 31)),)), Left(np.ones(31, np.bool_)))
    assert torch.equal(copy, tensor)
    assert copy.data_ptr() != tensor.data_ptr()


@pytest.mark.usefixtures("threads")
def test_as_many_threads_as_there_may_be_change_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(640, 640) for _ in range(6)), nn.Linear(640, 8))
            self.again = self.layers[2]  # one parameter under two names

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layers(x) + self.again(x)[:, :8]
            return out

    torch.manual_seed(0)
    captured = capture(Net().eval(), torch.randn(2, 640))
    candidate = captured.uniform(0.3, "random", seed=1)
    found = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.append(captured.prune(candidate).module.state_dict())
    first = found[0]
    assert sum(value.numel() >= 1 << 17 for value in first.values()) >= 3
    for other in found[1:]:
        assert list(other) == list(first)
        assert all(torch.equal(other[name], value) for name, value in first.items())


@pytest.mark.usefixtures("threads")
def test_what_goes_wrong_in_a_thread_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no room for a slice")

    captured = capture(nn.Sequential(*(nn.Linear(640, 640) for _ in range(4))).eval(), torch.randn(2, 640))
    candidate = captured.uniform(0.3, "random", seed=1)
    torch.set_num_threads(3)
    monkeypatch.setattr(torch, "index_select", broken)
    with pytest.raises(MemoryError, match="no room"):
        captured.prune(candidate, verify=False)
