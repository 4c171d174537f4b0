"""Where candidates are measured in another form than the dense reference (int8), the dense network in that form first.

Limits relative to the dense model are about the reference. The strategy behind this one plans from what the dense
network costs in the candidates' form; it sees absolute limits, and so need not know that there are two forms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.explanation import Explanation
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Explains, Proposal, Strategy
from edgeprune.search.limits import device_state

__all__ = ["DenseFirst"]

_Make = Callable[[Budget, Trial], Strategy]  # given absolute limits, and the dense network in the candidates' form


class DenseFirst:
    """Asks for the dense network as a final trial; ends there where the device's limits are met, else goes on."""

    def __init__(self, make: _Make, budget: Budget, reference: Trial) -> None:
        """`reference` is the trial that relative limits are about."""
        self._make = make
        self._budget = budget.absolute(reference.figures)
        self._strategy: Strategy | None = None
        self._done = False

    def ask(self) -> Sequence[Proposal]:
        """The dense network, then what the strategy asks."""
        if self._done:
            return ()
        if self._strategy is None:
            return [Proposal(Candidate(), Stage.FINAL, "the dense network in the form that candidates are measured in")]
        return self._strategy.ask()

    def tell(self, trial: Trial) -> None:
        """The dense network's trial makes the strategy; pruning is for what it misses on the device."""
        if self._strategy is not None:
            self._strategy.tell(trial)
        elif device_state(self._budget, trial, trial.figures) is State.MET:
            self._done = True
        else:
            self._strategy = self._make(self._budget, trial)

    def explain(self) -> Explanation:
        """What the strategy has to say, where there was need of one."""
        strategy: object = self._strategy
        return strategy.explain() if isinstance(strategy, Explains) else Explanation()
