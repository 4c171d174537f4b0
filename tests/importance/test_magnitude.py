from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.graph.capture import capture
from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.importance.base import ImportanceContext, Random, tensors
from edgeprune.importance.magnitude import L1, L2, BatchNormScale, Lamp
from edgeprune.importance.reduction import MemberReduction

ONE_EACH = np.arange(3, dtype=np.int64)[:, None]


class Said:
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def step(self, description: str, total: int | None = None):
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        pass

    def say(self, message: str) -> None:
        self.lines.append(message)


def pair() -> nn.Sequential:
    """Two producers of three units, (3, 2, 1) and (3, 1): weights chosen so that norms are whole numbers."""
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(1, 3, bias=False), nn.BatchNorm1d(3))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[3.0, -4.0], [0.0, 0.0], [-6.0, 8.0]]))
        module[0].bias.copy_(torch.tensor([100.0, 100.0, 100.0]))
        module[1].weight.copy_(torch.tensor([[1.0], [-5.0], [2.0]]))
        module[2].weight.copy_(torch.tensor([-3.0, 1.0, 2.0]))
    return module


def group(*members: Member, units: int = 3) -> ChannelGroup:
    return ChannelGroup("g", units, members)


FIRST = Member("0.weight", 0, ONE_EACH, "producer")
BIAS = Member("0.bias", 0, ONE_EACH, "producer")
SECOND = Member("1.weight", 0, ONE_EACH, "producer")
SCALE = Member("2.weight", 0, ONE_EACH, "affine")
SHIFT = Member("2.bias", 0, ONE_EACH, "affine")


def test_l1_is_the_mean_over_producing_weights_divided_by_the_mean_over_units() -> None:
    # First producer: 7, 0, 14; second: 1, 5, 2; mean over the two: 4, 2.5, 8, whose mean is 29/6. The bias is left out.
    scores = L1().score(pair(), [group(FIRST, BIAS, SECOND, SCALE)], ImportanceContext())
    assert_allclose(scores["g"], np.array([4, 2.5, 8]) / (14.5 / 3), rtol=1e-12)


def test_l2_is_the_euclidean_norm() -> None:
    # First: 5, 0, 10; second: 1, 5, 2; mean over the two: 3, 2.5, 6.
    scores = L2().score(pair(), [group(FIRST, BIAS, SECOND, SCALE)], ImportanceContext())
    assert_allclose(scores["g"], np.array([3, 2.5, 6]) / (11.5 / 3), rtol=1e-12)


def test_lamp_is_the_share_of_what_is_no_smaller() -> None:
    # Squared norms of the first producer: 25, 0, 100. The greatest is 1; 25 / 125; 0.
    scores = Lamp().score(pair(), [group(FIRST, BIAS)], ImportanceContext())
    assert_allclose(scores["g"], [25 / 125, 0, 1], rtol=1e-12)


def test_lamp_gives_ties_the_same_score() -> None:
    module = nn.Linear(1, 3, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[2.0], [1.0], [-2.0]]))
    scores = Lamp().score(module, [group(Member("weight", 0, ONE_EACH, "producer"))], ImportanceContext())
    assert_allclose(scores["g"], [4 / 8, 1 / 9, 4 / 8], rtol=1e-12)


def test_lamp_of_zeros_is_zero() -> None:
    module = nn.Linear(2, 3)
    nn.init.zeros_(module.weight)
    scores = Lamp().score(module, [group(Member("weight", 0, ONE_EACH, "producer"))], ImportanceContext())
    assert scores["g"].tolist() == [0, 0, 0]


def test_half_precision_weights_are_summed_in_double() -> None:
    module = nn.Linear(4096, 3, bias=False).to(torch.bfloat16)
    nn.init.constant_(module.weight, 1.0)
    scores = L1(normalise="none").score(module, [group(Member("weight", 0, ONE_EACH, "producer"))], ImportanceContext())
    assert scores["g"].tolist() == [4096, 4096, 4096]


def test_unit_of_several_indices_counts_them_all() -> None:
    # Units {0, 2} and {1, 1}: L1 of rows 7 + 14 and 0 + 0; L2 the root of the sum of squares, sqrt(25 + 100) and 0.
    member = Member("0.weight", 0, np.array([[0, 2], [1, 1]]), "producer")
    assert_allclose(L1().score(pair(), [group(member, units=2)], ImportanceContext())["g"], [2, 0])
    assert_allclose(L2().score(pair(), [group(member, units=2)], ImportanceContext())["g"], [2, 0])
    lone = Member("0.weight", 0, np.array([[0, 1], [2, 1]]), "producer")  # 7 and 14; 5 and 10
    assert_allclose(L1().score(pair(), [group(lone, units=2)], ImportanceContext())["g"], [2 / 3, 4 / 3])


def test_other_dimension_than_the_first() -> None:
    # Columns of the first weight: |3|+|0|+|-6| = 9 and |-4|+|0|+|8| = 12. Only consumers here: the last resort.
    member = Member("0.weight", 1, np.array([[0], [1]]), "consumer")
    assert_allclose(L1().score(pair(), [group(member, units=2)], ImportanceContext())["g"], [9 / 10.5, 12 / 10.5])


def test_all_zero_weights_score_zero() -> None:
    module = pair()
    nn.init.zeros_(module[0].weight)
    assert L1().score(module, [group(FIRST)], ImportanceContext())["g"].tolist() == [0, 0, 0]


def test_batch_norm_scale_is_the_absolute_scale() -> None:
    said = Said()
    scores = BatchNormScale().score(pair(), [group(FIRST, BIAS, SCALE, SHIFT)], ImportanceContext(progress=said))
    assert_allclose(scores["g"], np.array([3, 1, 2]) / 2)
    assert said.lines == []


def test_batch_norm_scale_takes_reduction_and_normalisation() -> None:
    scores = BatchNormScale(normalise="max").score(pair(), [group(FIRST, SCALE)], ImportanceContext())
    assert_allclose(scores["g"], np.array([3, 1, 2]) / 3)


def test_batch_norm_scale_falls_back_to_l2_and_says_so() -> None:
    said = Said()
    scores = BatchNormScale().score(pair(), [group(FIRST, BIAS)], ImportanceContext(progress=said))
    assert_allclose(scores["g"], [1, 0, 2])
    assert said.lines == ["bn_scale: 1 of 1 groups have no normalisation and are scored by l2: g"]


def test_batch_norm_scale_on_a_captured_graph() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, -1.5, 1.0, 1.0]))
    captured = capture(model, (torch.randn(2, 2, 5, 5),))
    scores = BatchNormScale().score(captured.module, captured.groups, ImportanceContext())
    assert [values.tolist() for values in scores.values()] == [[0.5, 1.5, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("members", "chosen"),
    [
        ((BIAS, FIRST, SECOND, SCALE), (FIRST, SECOND)),
        ((SCALE, BIAS), (BIAS,)),
        ((SCALE, Member("0.weight", 0, ONE_EACH, "affine")), ("0.weight",)),
        ((SCALE, Member("0.weight", 0, ONE_EACH, "consumer")), ("0.weight",)),
        ((SCALE, SHIFT), (SCALE, SHIFT)),
    ],
)
def test_producers_and_their_substitutes(members: tuple[Member, ...], chosen: tuple[Member | str, ...]) -> None:
    module, scored = pair(), group(*members)
    places = MemberReduction().places(module, [scored], tensors(module))["g"]
    assert [m.parameter for (m,) in places] == [c if isinstance(c, str) else c.parameter for c in chosen]


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'g' names 'nine.weight', which the module does not have"):
        L1().score(pair(), [group(Member("nine.weight", 0, ONE_EACH, "producer"))], ImportanceContext())


def test_random_depends_on_seed_and_group_name_alone() -> None:
    a = Random().score(pair(), [group(FIRST)], ImportanceContext(seed=1))["g"]
    b = Random().score(pair(), [group(SECOND)], ImportanceContext(seed=1))["g"]
    c = Random().score(pair(), [group(FIRST)], ImportanceContext(seed=2))["g"]
    assert a.tolist() == b.tolist()
    assert a.tolist() != c.tolist()
    assert ((a >= 0) & (a < 1)).all()
