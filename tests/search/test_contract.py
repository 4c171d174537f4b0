from __future__ import annotations

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
