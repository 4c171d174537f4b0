"""The contract of search strategies, as tests. Run it on your own:

    from edgeprune.testing.strategies import StrategyContract

    class TestMine(StrategyContract):
        factory = MyStrategy

It needs neither torch nor a device: see `edgeprune.testing.simulation`.
"""

from __future__ import annotations

from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Evaluate, SearchSpace, Strategy, StrategyFactory
from edgeprune.testing.simulation import SimulatedNetwork

__all__ = ["StrategyContract"]

_MOST_TRIALS = 400


class StrategyContract:
    """What the loop relies on. `factory` is the strategy's class, or any callable with the same arguments."""

    factory: StrategyFactory
    feasible = Budget.parse(
        {"latency": {"p50": "60% of dense"}, "size": "60% of dense", "accuracy": {"max_drop": "9pp"}}
    )
    infeasible = Budget.parse({"latency": {"p50": "1us"}})

    def test_is_a_strategy(self) -> None:
        network = SimulatedNetwork()
        assert isinstance(self._strategy(network.space(), self.feasible, _dense(network)), Strategy)

    def test_ends_with_a_final_trial_that_meets_the_budget(self) -> None:
        network = SimulatedNetwork()
        trials = self._run(network, self.feasible)
        last = trials[-1]
        assert last.stage is Stage.FINAL
        assert self.feasible.check(last.figures, _dense(network).figures).state is State.MET

    def test_asks_for_the_dense_model_where_it_is_within_the_limits(self) -> None:
        trials = self._run(SimulatedNetwork(), Budget.parse({"size": "100MB"}))
        assert [(trial.candidate, trial.stage) for trial in trials] == [(Candidate(), Stage.FINAL)]

    def test_ends_without_a_final_trial_where_the_device_limits_cannot_be_met(self) -> None:
        trials = self._run(SimulatedNetwork(), self.infeasible)
        assert trials
        assert all(trial.stage is not Stage.FINAL for trial in trials)

    def test_measures_the_narrowest_network_before_it_gives_up(self) -> None:
        network = SimulatedNetwork()
        narrowest = {group.name: group.widths[0] for group in network.space().groups}
        measured = [
            {name: len(units) for name, units in trial.candidate.kept.items()}
            for trial in self._run(network, self.infeasible)
            if trial.stage is Stage.MEASURE
        ]
        assert narrowest in measured

    def test_ends_where_accuracy_cannot_be_met(self) -> None:
        budget = Budget.parse({"latency": {"p50": "30% of dense"}, "accuracy": {"max_drop": "0.01pp"}})
        network = SimulatedNetwork(recovered=0.0)
        trials = self._run(network, budget)
        dense = _dense(network).figures
        assert all(budget.check(t.figures, dense).state is not State.MET for t in trials if t.stage is Stage.FINAL)

    def test_takes_out_of_memory_as_too_wide(self) -> None:
        network = SimulatedNetwork(memory_limit=30_000)
        trials = self._run(network, Budget.parse({"peak_memory": "80kB"}))
        assert trials[-1].stage is Stage.FINAL
        assert trials[-1].outcome == "OK"

    def test_proposes_only_allowed_widths_of_the_most_important_units(self) -> None:
        network = SimulatedNetwork()
        groups = {group.name: group for group in network.space().groups}
        for trial in self._run(network, self.feasible):
            for name, kept in trial.candidate.kept.items():
                assert len(kept) in groups[name].widths
                assert kept == groups[name].keep(len(kept))

    def test_never_asks_for_the_same_trial_twice(self) -> None:
        trials = self._run(SimulatedNetwork(), self.infeasible)
        asked = [(trial.candidate.id, trial.stage) for trial in trials]
        assert len(asked) == len(set(asked))

    def test_is_deterministic(self) -> None:
        first, second = (self._run(SimulatedNetwork(), self.feasible) for _ in range(2))
        assert [(t.candidate.id, t.stage) for t in first] == [(t.candidate.id, t.stage) for t in second]

    def test_replays_what_it_was_told_before(self) -> None:
        network = SimulatedNetwork()
        trials = self._run(network, self.feasible)
        for cut in range(0, len(trials), max(len(trials) // 4, 1)):
            recorded = iter(trials[:cut])

            def replay(candidate: Candidate, stage: Stage, number: int, recorded=recorded) -> Trial:  # type: ignore[no-untyped-def]
                trial: Trial = next(recorded, None) or network(candidate, stage, number)
                assert (trial.candidate.id, trial.stage) == (candidate.id, stage)
                return trial

            again = self._run(network, self.feasible, replay)
            assert [t.candidate.id for t in again] == [t.candidate.id for t in trials]

    def test_has_nothing_to_ask_where_nothing_can_be_pruned(self) -> None:
        network = SimulatedNetwork()
        empty = SearchSpace((), network.estimate)
        assert list(self._strategy(empty, self.infeasible, _dense(network)).ask()) == []

    def _run(self, network: SimulatedNetwork, budget: Budget, evaluate: Evaluate | None = None) -> list[Trial]:
        strategy = self._strategy(network.space(), budget, _dense(network))
        trials: list[Trial] = []
        while proposals := strategy.ask():
            for proposal in proposals:
                trial = (evaluate or network)(proposal.candidate, proposal.stage, len(trials) + 1)
                trials.append(trial)
                strategy.tell(trial)
            assert len(trials) <= _MOST_TRIALS, f"no end after {len(trials)} trials"
        assert not strategy.ask(), "asked again after the end"
        return trials

    def _strategy(self, space: SearchSpace, budget: Budget, baseline: Trial) -> Strategy:
        return self.factory(space, budget, baseline, seed=0)


def _dense(network: SimulatedNetwork) -> Trial:
    return network(Candidate(), Stage.MEASURE, 0)
