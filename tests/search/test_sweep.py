"""The front on cost models that are known: every point is the optimum within its limit."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import SearchSpace
from edgeprune.search.problem import Choice, Problem, predicted_loss
from edgeprune.search.sweep import Aim, Front
from tests.search.problems import best, small_space


def trial(space: SearchSpace, candidate: Candidate, number: int, factor: float = 1.0) -> Trial:
    """As a device would have it that is slower than predicted by a factor."""
    assert space.costs is not None
    figures = {name: Figure(value * factor, value * factor) for name, value in space.costs.predict(candidate).items()}
    return Trial(number, Stage.MEASURE, candidate, "OK", figures)


def driven(space: SearchSpace, aims: list[Aim], factor: float = 1.0) -> tuple[Front, list[Trial]]:
    dense = trial(space, Candidate(), 0, factor)
    front = Front(space, dense, aims, Stage.MEASURE)
    trials = [dense]
    while proposals := front.ask():
        for proposal in proposals:
            assert proposal.stage is Stage.MEASURE
            trials.append(trial(space, proposal.candidate, len(trials), factor))
            front.tell(trials[-1])
    return front, trials


def latency(space: SearchSpace, candidate: Candidate = Candidate()) -> float:  # noqa: B008  frozen
    assert space.costs is not None
    return space.costs.metrics["latency.p50"].predict(candidate)


@pytest.mark.parametrize("seed", range(3))
def test_every_point_is_the_optimum_within_its_limit(seed: int) -> None:
    space = small_space(np.random.default_rng(seed))
    assert space.costs is not None
    whole = latency(space)
    aims = [Aim(f"{share:.0%}", share * whole, "latency.p50") for share in (0.9, 0.7, 0.5)]
    front, trials = driven(space, aims)
    for aimed in front.aimed:
        problem = Problem(space, space.costs.metrics, {"latency.p50": aimed.aim.limit})
        least = best(problem)
        assert least is not None
        assert aimed.reachable
        assert latency(space, aimed.candidate) <= aimed.aim.limit * (1 + 1e-3)
        assert predicted_loss(space, Choice.of(aimed.candidate, space)) == pytest.approx(least, rel=5e-3, abs=1e-6)
        assert trials[aimed.trial].candidate == aimed.candidate
        assert aimed.predicted["latency.p50"] == pytest.approx(latency(space, aimed.candidate), rel=5e-3)


def test_a_device_that_is_slower_than_predicted_corrects_the_plan() -> None:
    space = small_space(np.random.default_rng(1))
    limit = 0.6 * 1.3 * latency(space)
    front, trials = driven(space, [Aim("60%", limit, "latency.p50")], factor=1.3)
    measured = trials[front.aimed[0].trial].figures["latency.p50"].value
    assert measured is not None
    assert measured <= limit * 1.05


def test_an_aim_out_of_reach_is_the_smallest_network_once() -> None:
    space = small_space(np.random.default_rng(0))
    front, trials = driven(space, [Aim("a", 1e-3, "latency.p50"), Aim("b", 1e-4, "latency.p50")])
    assert [aimed.reachable for aimed in front.aimed] == [False, False]
    assert len(trials) == 2
    assert space.costs is not None
    smallest = best(Problem(space, space.costs.metrics, minimise="latency.p50"))
    assert latency(space, front.aimed[0].candidate) == pytest.approx(smallest, rel=5e-3)


def test_a_limit_above_the_dense_model_is_the_dense_model() -> None:
    space = small_space(np.random.default_rng(0))
    front, trials = driven(space, [Aim("200%", 2 * latency(space), "latency.p50")])
    assert [aimed.trial for aimed in front.aimed] == [0]
    assert len(trials) == 1


def test_ratios_need_no_cost_model() -> None:
    space = small_space(np.random.default_rng(0))
    bare = SearchSpace(space.groups, space.estimate)
    dense = Trial(0, Stage.MEASURE, Candidate(), "OK", {})
    front = Front(bare, dense, [Aim("50% gone", 0.5), Aim("51% gone", 0.49)], Stage.FINAL)
    (proposal,) = front.ask()
    assert proposal.stage is Stage.FINAL
    assert {len(units) for units in proposal.candidate.kept.values()} == {16}
    front.tell(Trial(1, Stage.FINAL, proposal.candidate, "OK", {}))
    assert not front.ask()  # the second has the same widths
    assert [aimed.trial for aimed in front.aimed] == [1, 1]
    assert front.aimed[0].predicted == {}
