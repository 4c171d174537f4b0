"""Candidates in another form than the dense reference: its limits hold, and plans start from the form."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Proposal, Strategy
from edgeprune.search.dense_first import DenseFirst

DENSE = Candidate()
BUDGET = Budget.parse({"latency": {"p50": "50% of dense"}, "size": "10kB", "accuracy": {"max_drop": "2pp"}})


def trial(number: int, stage: Stage, latency_ms: float, accuracy: float, candidate: Candidate = DENSE) -> Trial:
    figures = {
        "latency.p50": Figure(latency_ms, latency_ms),
        "size": Figure(9000, 9000),
        "accuracy": Figure(accuracy),
    }
    return Trial(number, stage, candidate, "OK", figures)


REFERENCE = trial(0, Stage.MEASURE, 4.0, 0.9)


class Recording:
    def __init__(self, budget: Budget, dense: Trial) -> None:
        self.budget, self.dense, self.told = budget, dense, list[Trial]()

    def ask(self) -> list[Proposal]:
        return [] if self.told else [Proposal(Candidate({"a": (0,)}), Stage.FINAL)]

    def tell(self, trial: Trial) -> None:
        self.told.append(trial)


def test_the_strategy_plans_from_the_form_s_dense_network_within_absolute_limits() -> None:
    made: list[Recording] = []

    def make(budget: Budget, dense: Trial) -> Strategy:
        made.append(Recording(budget, dense))
        return made[0]

    strategy = DenseFirst(make, BUDGET, REFERENCE)
    (first,) = strategy.ask()
    assert (first.candidate, first.stage) == (Candidate(), Stage.FINAL)
    assert not made
    int8 = trial(1, Stage.FINAL, 3.0, 0.89)
    strategy.tell(int8)
    assert made[0].dense is int8
    assert {limit.metric: (limit.bound({}), limit.text) for limit in made[0].budget.limits} == {
        "latency.p50": (2.0, "50% of dense"),
        "size": (10_000.0, "10kB"),
        "accuracy.max_drop": (pytest.approx(0.88), "2pp"),
    }
    (proposal,) = strategy.ask()
    assert proposal.candidate == Candidate({"a": (0,)})
    done = trial(2, Stage.FINAL, 1.9, 0.885, proposal.candidate)
    strategy.tell(done)
    assert made[0].told == [done]
    assert strategy.ask() == []


@pytest.mark.parametrize("accuracy", [0.89, 0.5])
def test_nothing_is_pruned_where_the_form_alone_is_within_the_device_s_limits(accuracy: float) -> None:
    def make(budget: Budget, dense: Trial) -> Strategy:
        raise AssertionError("there is no need of a strategy")

    strategy = DenseFirst(make, BUDGET, REFERENCE)
    strategy.ask()
    strategy.tell(trial(1, Stage.FINAL, 1.5, accuracy))
    assert strategy.ask() == ()
    assert strategy.explain().infeasibility is None


def test_a_limit_whose_dense_figure_is_missing_stays_relative() -> None:
    blind = replace(REFERENCE, figures={"accuracy": Figure(0.9)})
    (latency, size, accuracy) = BUDGET.absolute(blind.figures).limits
    assert latency.relative
    assert not size.relative
    assert accuracy.bound({}) == pytest.approx(0.88)
    assert BUDGET.absolute(REFERENCE.figures).check(REFERENCE.figures, {}).limits[2].state.value == "met"
