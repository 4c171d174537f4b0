from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.importance import similarity
from edgeprune.importance.base import ImportanceContext
from edgeprune.importance.similarity import GeometricMedian


def score(weight: torch.Tensor, indices: list[list[int]] | None = None, dim: int = 0) -> np.ndarray:
    module = nn.Module()
    module.weight = nn.Parameter(weight)
    found = np.arange(weight.shape[dim])[:, None] if indices is None else np.array(indices)
    group = ChannelGroup("g", len(found), (Member("weight", dim, found, "producer"),))
    return GeometricMedian(normalise="none").score(module, [group], ImportanceContext())["g"]


def test_sum_of_distances_to_the_other_units() -> None:
    # (0, 0), (3, 4), (3, 0): distances 5, 3 and 4.
    assert_allclose(score(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]])), [8, 9, 7], rtol=1e-12)


def test_the_unit_at_the_median_goes_first_however_large_its_weights_are() -> None:
    assert score(torch.tensor([[100.0, 100.0], [101.0, 100.0], [99.0, 100.0], [100.0, 103.0]])).argmin() == 0


def test_all_elements_of_a_unit_count_on_any_dimension() -> None:
    # Units of columns {0, 1} and {2, 3}: (1, 0; 2, 0) and (1, 4; 2, 3), apart by (4, 3).
    weight = torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.0, 0.0, 4.0, 3.0]])
    assert_allclose(score(weight, [[0, 1], [2, 3]], dim=1), [5, 5], rtol=1e-12)


def test_same_filters_are_at_no_distance() -> None:
    assert_allclose(score(torch.full((4, 3, 2, 2), 7.3)), np.zeros(4), atol=1e-7)


def test_blocks_do_not_change_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight = torch.randn(37, 5, 3, 3)
    whole = score(weight)
    monkeypatch.setattr(similarity, "_BLOCK", 37 * 4)
    assert_allclose(score(weight), whole, rtol=1e-12)
    rows = weight.reshape(37, -1).double()
    assert_allclose(whole, [sum(math.dist(a, b) for b in rows.tolist()) for a in rows.tolist()], rtol=1e-9)
