"""The exact search: each plan is the optimum of a mixed-integer programme on the device's cost model."""

from __future__ import annotations

from edgeprune.errors import UsageError
from edgeprune.records.budget import Budget
from edgeprune.records.trial import Trial
from edgeprune.search.base import SearchSpace
from edgeprune.search.planned import Planned
from edgeprune.search.problem import Infeasible, Problem, Solution
from edgeprune.search.solve import solve

__all__ = ["Milp"]


class Milp(Planned):
    """Solves exactly; needs a cost model."""

    def __init__(self, space: SearchSpace, budget: Budget, baseline: Trial, *, seed: int = 0) -> None:  # noqa: ARG002
        """The seed has no effect: nothing is drawn. Raises UsageError where there is no cost model to plan with."""
        if space.costs is None and space.groups:
            raise UsageError(
                "the strategy 'milp' plans with a cost model of the device, and there is none",
                hint="choose greedy, netadapt, uniform or evolutionary, which need none",
            )
        super().__init__(space, budget, baseline, {} if space.costs is None else space.costs.metrics)

    def solve(self, problem: Problem) -> Solution | Infeasible:
        """The optimum."""
        return solve(problem)
