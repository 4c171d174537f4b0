from __future__ import annotations

from dataclasses import replace

from edgeprune.records.budget import Budget
from edgeprune.records.trial import Trial
from edgeprune.search.base import SearchSpace
from edgeprune.search.evolutionary import Evolutionary
from edgeprune.search.greedy import Greedy
from edgeprune.search.milp import Milp
from edgeprune.search.uniform import Uniform
from edgeprune.testing.strategies import StrategyContract


class TestUniform(StrategyContract):
    factory = Uniform


class TestGreedy(StrategyContract):
    factory = Greedy


class TestMilp(StrategyContract):
    factory = Milp


class TestEvolutionary(StrategyContract):
    factory = Evolutionary


class TestEvolutionaryWithoutACostModel(StrategyContract):
    @staticmethod
    def factory(space: SearchSpace, budget: Budget, baseline: Trial, *, seed: int) -> Evolutionary:
        return Evolutionary(replace(space, costs=None), budget, baseline, seed=seed)
