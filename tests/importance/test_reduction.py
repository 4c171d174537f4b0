from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.graph.capture import capture
from edgeprune.importance.base import ImportanceContext
from edgeprune.importance.magnitude import L1, L2


def network() -> nn.Sequential:
    """Two hidden units: producer rows (1, -2) and (3, 0), scale (5, -1), consumer columns (1, 1) and (0, 7)."""
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
        module[1].weight.copy_(torch.tensor([5.0, -1.0]))
        module[1].bias.copy_(torch.tensor([0.5, 2.0]))
        module[3].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 7.0]]))
    return module


CAPTURED = capture(network(), (torch.randn(2, 2),))


def l1(**parameters: str) -> list[float]:
    importance = L1(**{"normalise": "none", **parameters})
    return importance.score(CAPTURED.module, CAPTURED.groups, ImportanceContext())["0"].tolist()


@pytest.mark.parametrize(
    ("members", "summed"),
    [("producers", [3, 3]), ("consumers", [2, 7]), ("all", [3 + 5 + 2, 3 + 1 + 7]), ("gates", [5.5, 3])],
)
def test_members(members: str, summed: list[float]) -> None:
    assert l1(members=members, reduce="sum") == pytest.approx(summed)


@pytest.mark.parametrize(
    ("reduce", "joined"),
    [
        ("sum", [10, 11]),
        ("mean", [10 / 3, 11 / 3]),
        ("max", [5, 7]),
        ("l2", [np.sqrt(9 + 25 + 4), np.sqrt(9 + 1 + 49)]),
    ],
)
def test_reduce(reduce: str, joined: list[float]) -> None:
    assert l1(members="all", reduce=reduce) == pytest.approx(joined)


@pytest.mark.parametrize(
    ("normalise", "scores"),
    [
        ("none", [2, 7]),
        ("mean", [2 / 4.5, 7 / 4.5]),
        ("max", [2 / 7, 1]),
        ("standard", [-1, 1]),
        ("size", [1, 3.5]),
    ],
)
def test_normalise(normalise: str, scores: list[float]) -> None:
    assert l1(members="consumers", normalise=normalise) == pytest.approx(scores)


def test_size_counts_the_weights_of_all_members() -> None:
    assert l1(members="all", reduce="sum", normalise="size") == pytest.approx([10 / 5, 11 / 5])


@pytest.mark.parametrize("normalise", ["none", "mean", "max", "standard", "size"])
def test_equal_scores_stay_finite_and_equal(normalise: str) -> None:
    first, second = l1(members="producers", normalise=normalise)
    assert np.isfinite(first)
    assert first == second


def test_group_norm_of_depgraph_by_name() -> None:
    spec = "l2:members=all,reduce=l2,normalise=none"
    scores = registry.create("importances", spec).score(CAPTURED.module, CAPTURED.groups, ImportanceContext())
    squares = np.array([1 + 4 + 25 + 1 + 1, 9 + 1 + 49])
    assert_allclose(scores["0"], np.sqrt(squares), rtol=1e-12)


@pytest.mark.parametrize(
    "spec",
    [
        "l1:members=all,reduce=max",
        "l1: members=all, reduce=max",
        {"name": "l1", "members": "all", "reduce": "max"},
        L1(members="all", reduce="max"),
    ],
)
def test_written_in_any_form(spec: str | Mapping[str, str] | L1) -> None:
    assert registry.create("importances", spec) == L1(members="all", reduce="max", normalise="mean")
    assert CAPTURED.uniform(0.5, spec).kept == CAPTURED.uniform(0.5, L1(members="all", reduce="max")).kept


def test_plain_name_means_the_defaults() -> None:
    assert registry.create("importances", "l2") == L2(members="producers", reduce="mean", normalise="mean")


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("l11", "unknown importance 'l11'", "l1, l2, lamp"),
        ("l1:reduced=sum", "'l1' has no parameter 'reduced'", "did you mean 'reduce'"),
        ("random:reduce=sum", "'random' has no parameter 'reduce'", "no parameters"),
        ("wanda:members=all", "'wanda' has no parameter 'members'", "reduce, normalise"),
        ("l1:reduce=summ", "reduce cannot be 'summ'", "did you mean 'sum'"),
        ({"name": "l1", "members": "everything"}, "members cannot be 'everything'", "producers, consumers, all, gates"),
        ({"name": "l1", "normalise": None}, "normalise cannot be None", "none"),
        ("l1:", "'l1:' cannot be read", "l1:members=all"),
        ("l1:members", "'l1:members' cannot be read", "l1:members=all"),
        ({"members": "all"}, "does not say the name", "name: l1"),
    ],
)
def test_refusals(spec: str | Mapping[str, str], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        registry.create("importances", spec)
    assert hint in (caught.value.hint or "")
