from __future__ import annotations

from dataclasses import replace

from edgeprune.records.budget import Budget
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import SearchSpace
from edgeprune.search.evolutionary import Evolutionary
from edgeprune.search.greedy import Greedy, NetAdapt
from edgeprune.search.milp import Milp
from edgeprune.search.uniform import Uniform
from edgeprune.testing.simulation import SimulatedNetwork
from edgeprune.testing.strategies import StrategyContract


class TestUniform(StrategyContract):
    factory = Uniform


class TestGreedy(StrategyContract):
    factory = Greedy


class TestNetAdapt(StrategyContract):
    factory = NetAdapt

    def test_compares_what_is_fine_tuned_where_greedy_screens(self) -> None:
        screened, tuned = (
            [(trial.candidate.id, trial.stage) for trial in contract._run(SimulatedNetwork(), self.feasible)]
            for contract in (TestGreedy(), self)
        )
        swapped = [(name, Stage.TUNE if stage is Stage.SCREEN else stage) for name, stage in screened]
        assert Stage.SCREEN in {stage for _, stage in screened}
        assert {stage for _, stage in tuned} == {Stage.TUNE, Stage.MEASURE, Stage.FINAL}
        assert tuned[:3] == swapped[:3]  # then what is learnt of the groups may differ


class TestMilp(StrategyContract):
    factory = Milp


class TestEvolutionary(StrategyContract):
    factory = Evolutionary


class TestEvolutionaryWithoutACostModel(StrategyContract):
    @staticmethod
    def factory(space: SearchSpace, budget: Budget, baseline: Trial, *, seed: int) -> Evolutionary:
        return Evolutionary(replace(space, costs=None), budget, baseline, seed=seed)
