from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import UsageError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.graph.groups import ChannelGroup
from edgeprune.graph.selection import channels_per_unit, structures


class Given:
    """An importance that says what it is told."""

    needs_data = False

    def __init__(self, scores: Mapping[str, Sequence[float]]) -> None:
        self.scores = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}

    def score(self, module, groups: Sequence[ChannelGroup], context):
        return self.scores


class Chain(nn.Module):
    """Three prunable groups, `a`, `b` (the same structure) and `c.0` (with a normalisation); the head is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(4, 8)
        self.c = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.c(functional.relu(self.b(functional.relu(self.a(x)))))))


class Heads(nn.Module):
    """Four attention heads of 8 channels, and 16 hidden neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 96)
        self.out = nn.Linear(32, 12)
        self.up = nn.Linear(12, 16)
        self.down = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(functional.relu(self.up(x)))


MODEL = Chain().eval()
CHAIN = capture(MODEL, (torch.ones(2, 3),))
HEADS = capture(Heads().eval(), (torch.randn(2, 5, 12),))

SCORES = {
    "a": [4.0, 1.0, 3.0, 2.0],
    "b": [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0],
    "c.0": [0.5, 0.4, 0.3, 0.2, 0.1, 0.6],
}


def widths(captured: Captured, kept: Mapping[str, Sequence[int]]) -> dict[str, int]:
    return {group.name: len(kept.get(group.name, range(group.units))) for group in captured.groups}


def chain(ratio: float, **how) -> dict[str, tuple[int, ...]]:
    return dict(CHAIN.select(ratio, importance=Given(SCORES), **how).kept)


def test_layer_takes_the_same_share_of_every_group() -> None:
    assert chain(0.5) == {"a": (0, 2), "b": (4, 5, 6, 7), "c.0": (0, 1, 5)}


def test_uniform_is_the_simple_form() -> None:
    assert CHAIN.uniform(0.5, "l1", round_to=2) == CHAIN.select(0.5, importance="l1", round_to=2)


def test_global_is_one_ranking_and_no_group_is_emptied() -> None:
    # 9 of 18 go. Ascending: all of c.0 but its best, then all of a but its best, and only then b.
    assert chain(0.5, compare="global") == {"a": (0,), "b": (1, 2, 3, 4, 5, 6, 7), "c.0": (5,)}


def test_isomorphic_ranks_among_groups_of_the_same_structure() -> None:
    # a and b compete: 6 of their 12 go, all of a but its best and the three lowest of b. c.0 loses 3 of its own 6.
    assert chain(0.5, compare="isomorphic") == {"a": (0,), "b": (3, 4, 5, 6, 7), "c.0": (0, 1, 5)}


def test_structure_knows_operators_and_no_sizes() -> None:
    found = structures(CHAIN.module, CHAIN.groups)
    assert found["a"] == found["b"] != found["c.0"]
    assert ((("batch_norm", 1),), 0, "affine") in found["c.0"]
    assert ((("linear", 1),), 1, "consumer") in found["a"]


def test_floor_is_taken_from_no_one_else() -> None:
    # Two units of each are out of reach; the 6 that may still go are not enough for the 9 that should.
    kept = chain(0.9, compare="global", min_width=5)
    assert {name: len(units) for name, units in kept.items()} == {"b": 5, "c.0": 5}
    assert kept["b"] == (3, 4, 5, 6, 7)


def test_min_share() -> None:
    assert widths(CHAIN, chain(0.9, min_share=0.5)) == {"a": 2, "b": 4, "c.0": 3}
    assert widths(CHAIN, chain(0.9, min_share=1.0)) == {"a": 4, "b": 8, "c.0": 6}
    assert widths(CHAIN, chain(0.99, compare="global", min_share=0.34)) == {"a": 2, "b": 3, "c.0": 3}


def test_round_to() -> None:
    assert widths(CHAIN, chain(0.3, round_to=4)) == {"a": 4, "b": 4, "c.0": 4}  # of 2.8, 5.6 and 4.2
    assert widths(CHAIN, chain(0.3, round_to=100)) == {"a": 4, "b": 8, "c.0": 6}


def test_full_width_is_a_multiple_too() -> None:
    assert chain(0.0, round_to=5) == {}
    assert widths(CHAIN, chain(0.1, round_to=5)) == {"a": 4, "b": 8, "c.0": 5}  # of 3.6, 7.2 and 5.4
    assert widths(CHAIN, chain(0.2, round_to=5)) == {"a": 4, "b": 5, "c.0": 5}  # of 3.2, 6.4 and 4.8


def test_round_to_per_pattern_the_first_that_fits() -> None:
    assert widths(CHAIN, chain(0.5, round_to={"c.*": 6, "[ac]*": 4})) == {"a": 4, "b": 4, "c.0": 6}
    assert widths(CHAIN, chain(0.5, round_to={"b.weight": 3})) == {"a": 2, "b": 3, "c.0": 3}


def test_widths_are_counted_in_channels() -> None:
    heads, neurons = HEADS.groups
    assert [(channels_per_unit(g), g.units) for g in (heads, neurons)] == [(8, 4), (1, 16)]
    assert list(widths(HEADS, HEADS.select(0.3, round_to=8).kept).values()) == [3, 8]
    assert list(widths(HEADS, HEADS.select(0.3, round_to=16).kept).values()) == [2, 16]
    assert list(widths(HEADS, HEADS.select(0.9, min_width=12).kept).values()) == [2, 12]


@pytest.mark.parametrize(
    "ignored",
    ["b", "b.weight", "b.*", ["head", "b.bias"], MODEL.b, [MODEL.b], [MODEL.b, "b"]],
    ids=["layer", "parameter", "pattern", "list", "module", "modules", "both"],
)
def test_ignored_layer_keeps_its_outputs(ignored) -> None:
    # And its inputs follow what feeds it: a, of which b.weight is a consumer, is pruned.
    assert chain(0.5, ignored=ignored) == {"a": (0, 2), "c.0": (0, 1, 5)}


def test_ratio_is_of_what_is_not_ignored() -> None:
    kept = chain(0.5, compare="global", ignored="b")
    assert kept == {"c.0": (5,)}  # 5 of 10: b's eight units do not count


def test_ignored_sequence_is_one_module() -> None:
    assert chain(0.5, ignored=MODEL.c).keys() == {"a", "b"}


def test_ignored_head_is_no_error_as_it_is_never_pruned() -> None:
    assert chain(0.5, ignored="head.*") == chain(0.5)


def test_group_name_can_be_ignored() -> None:
    name = HEADS.groups[0].name
    assert HEADS.select(0.5, ignored=name).kept.keys() == {HEADS.groups[1].name}


def test_everything_ignored_is_the_dense_model() -> None:
    for compare in ("layer", "global", "isomorphic"):
        assert CHAIN.select(0.5, ignored="*", compare=compare).is_dense


def test_ties_go_to_the_earlier_unit_in_graph_order() -> None:
    same = Given({"a": [1.0] * 4, "b": [1.0] * 8, "c.0": [1.0] * 6})
    assert CHAIN.select(0.5, importance=same).kept == {"a": (0, 1), "b": (0, 1, 2, 3), "c.0": (0, 1, 2)}
    kept = CHAIN.select(0.5, importance=same, compare="global").kept
    # 9 go, from the end: five of c.0, then four of b.
    assert kept == {"b": (0, 1, 2, 3), "c.0": (0,)}


def test_selection_prunes_and_verifies() -> None:
    model = Chain().eval()
    captured = capture(model, (torch.randn(2, 3),))
    pruned = captured.prune(captured.select(0.5, compare="global", round_to=2, ignored="c.0"))
    assert pruned.verification is not None
    assert pruned.module.get_parameter("c.0.weight").shape[0] == 6


@given(
    data=st.data(),
    ratio=st.floats(0, 0.99),
    compare=st.sampled_from(["layer", "global", "isomorphic"]),
    least=st.integers(0, 9),
    share=st.floats(0, 1),
    step=st.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_widths_hold_their_promises(*, data, ratio: float, compare, least: int, share: float, step: int) -> None:
    scores = {g.name: data.draw(st.lists(st.integers(-3, 3), min_size=g.units, max_size=g.units)) for g in CHAIN.groups}
    how = {"compare": compare, "min_width": least, "min_share": share}
    kept = CHAIN.select(ratio, importance=Given(scores), round_to=step, **how).kept
    for group in CHAIN.groups:
        units = kept.get(group.name, tuple(range(group.units)))
        assert len(units) >= min(max(1, least), group.units)
        assert len(units) >= share * group.units - 1e-6
        assert len(units) % step == 0 or len(units) == group.units
        gone = set(range(group.units)) - set(units)
        assert all(scores[group.name][u] <= min(scores[group.name][k] for k in units) for u in gone)
    # Without rounding and floors the share that goes is the one asked for, as far as one unit of each stays.
    free = CHAIN.select(ratio, importance=Given(scores), compare="global").kept
    assert sum(widths(CHAIN, free).values()) == max(18 - round(18 * ratio), 3)


@pytest.mark.parametrize(
    ("how", "message", "hint"),
    [
        ({"ratio": 1.0}, "ratio 1.0 is not between 0 and 1", "0.5 removes half"),
        ({"ratio": -0.1}, "ratio -0.1", "0.5"),
        ({"compare": "globl"}, "compared by 'globl'", "did you mean 'global'"),
        ({"ignored": "d"}, "ignored: nothing is named like 'd'", "head"),
        ({"ignored": ["a", "c.1.wait"]}, "ignored: nothing is named like 'c.1.wait'", "did you mean 'c.1.weight'"),
        ({"ignored": nn.Linear(2, 2)}, "shares no parameter with the Linear", "the very model that was captured"),
        ({"round_to": 0}, "multiples of 0", "1 does not round"),
        ({"round_to": {"d": 4}}, "round_to: nothing is named like 'd'", "head"),
        ({"min_width": -1}, "can keep -1 channels", "number of channels"),
        ({"min_share": 1.5}, "share 1.5", "between 0 and 1"),
    ],
)
def test_refusals(how, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        CHAIN.select(how.pop("ratio", 0.5), **how)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("wrong", [{}, {"a": [1.0]}, {"a": [1.0, 2.0, np.nan, 3.0]}, {"a": [1.0, 2.0, np.inf, 3.0]}])
def test_scores_that_cannot_be_ranked_are_refused(wrong) -> None:
    with pytest.raises(UsageError, match="group 'a' of 4 units has no finite score"):
        CHAIN.select(0.5, importance=Given({**SCORES, "a": [], **wrong}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": "a"}, "the pruning ratio cannot be 'a'"),
        ({"ratio": True}, "the pruning ratio cannot be True"),
        ({"ratio": 0.5, "round_to": 2.5}, "round_to for '\\*' cannot be 2.5"),
        ({"ratio": 0.5, "round_to": {"*": "8"}}, "cannot be '8'"),
        ({"ratio": 0.5, "min_width": 1.5}, "min_width cannot be 1.5"),
    ],
)
def test_what_is_no_number_is_refused(options: dict[str, object], message: str) -> None:
    network = capture(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).eval(), (torch.randn(1, 4),))
    with pytest.raises(UsageError, match=message):
        network.select(**options)  # type: ignore[arg-type]
