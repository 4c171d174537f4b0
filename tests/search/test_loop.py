from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.errors import CannotMeasureError, StorageError, TargetError, VerificationError
from edgeprune.records import codec
from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Evaluate, Proposal, StrategyFactory
from edgeprune.search.greedy import Greedy
from edgeprune.search.journal import Journal, read_trials
from edgeprune.search.loop import search
from edgeprune.search.uniform import Uniform
from edgeprune.testing.simulation import SimulatedNetwork
from tests.search.looping import FEASIBLE, NETWORK, run


def failing(at: int, times: int, outcome: str) -> tuple[Evaluate, list[int]]:
    """An evaluate whose trial `at` comes out as `outcome` for so many times; and the numbers it was called with."""
    called: list[int] = []

    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        called.append(number)
        trial = NETWORK(candidate, stage, number)
        if number == at and called.count(at) <= times:
            return replace(trial, outcome=outcome, message="on purpose", figures={})
        return trial

    return evaluate, called


@pytest.mark.parametrize("factory", [Uniform, Greedy])
def test_the_accepted_trial_is_final_and_met_by_upper_bounds(tmp_path: Path, factory: StrategyFactory) -> None:
    result = run(tmp_path, factory=factory)
    assert result.status == "accepted"
    assert result.exit_code == 0
    assert result.best is not None
    assert result.best.stage is Stage.FINAL
    assert result.check is not None
    assert result.check.state is State.MET
    for entry in result.check.limits:
        assert entry.limit.is_accuracy or (entry.upper or 0) <= (entry.bound or 0)
    assert result.dense.number == 0
    assert result.dense.candidate == Candidate()
    assert result.trials == len(read_trials(tmp_path))
    assert result.reachable == {}


def test_every_trial_is_journaled_before_it_is_told(tmp_path: Path) -> None:
    class Watched(Uniform):
        def tell(self, trial: Trial) -> None:
            assert read_trials(tmp_path)[-1] == trial
            told.append(trial.number)
            super().tell(trial)

    told: list[int] = []
    result = run(tmp_path, factory=Watched)
    assert told == list(range(1, result.trials))


def test_uniform_takes_the_widest_network_within_the_limits(tmp_path: Path) -> None:
    network = SimulatedNetwork(noise=0.0)
    space = network.space()
    result = run(tmp_path, evaluate=network)
    assert result.best is not None
    dense = network(Candidate(), Stage.MEASURE, 0)
    chosen = space.estimate(result.best.candidate)["macs"]
    candidates = [space.candidate(space.uniform(keep / 100)) for keep in range(1, 101)]
    wider = [candidate for candidate in candidates if space.estimate(candidate)["macs"] > chosen]
    states = {FEASIBLE.check(network(c, Stage.FINAL, 1).figures, dense.figures).state for c in wider}
    assert states == {State.VIOLATED}


@pytest.mark.parametrize("factory", [Uniform, Greedy])
def test_an_impossible_limit_is_infeasible_with_the_smallest_measured_value(
    tmp_path: Path, factory: StrategyFactory
) -> None:
    budget = Budget.parse({"latency": {"p50": "1us"}, "size": "1MB"})
    result = run(tmp_path, budget, factory=factory)
    assert result.status == "infeasible"
    assert result.exit_code == 4
    measured = {t.number: t.figures["latency.p50"].value for t in read_trials(tmp_path) if t.stage is not Stage.SCREEN}
    value, number = result.reachable["latency.p50"]
    assert measured[number] == value == min(v for v in measured.values() if v is not None)
    assert set(result.reachable) == {"latency.p50"}
    assert result.best is not None
    assert result.best.number == number
    assert f"{value * 1000:.1f} us" in result.message
    assert f"trial {number}" in result.message


def test_accuracy_out_of_reach_is_infeasible_with_the_best_that_fits(tmp_path: Path) -> None:
    budget = Budget.parse({"latency": {"p50": "40% of dense"}, "accuracy": {"max_drop": "0.1pp"}})
    result = run(tmp_path, budget)
    assert result.status == "infeasible"
    assert result.best is not None
    assert result.best.stage is Stage.FINAL
    assert result.reachable == {"accuracy": (result.best.figures["accuracy"].value, result.best.number)}
    assert "accuracy.max_drop 0.1pp (94.90 %): the highest within the device's limits is" in result.message


def test_what_the_device_cannot_measure_ends_the_run_at_once(tmp_path: Path) -> None:
    result = run(tmp_path, Budget.parse({"energy": "12mJ", "size": "1kB"}))
    assert result.status == "unmeasurable"
    assert result.exit_code == 3
    assert result.trials == 1
    assert "energy: not measured" in result.message
    assert "size" not in result.message


def test_a_dense_model_out_of_memory_only_rules_out_relative_limits(tmp_path: Path) -> None:
    tight = SimulatedNetwork(memory_limit=20_000)
    relative = run(tmp_path / "relative", Budget.parse({"latency": {"p50": "60% of dense"}}), evaluate=tight)
    assert relative.status == "unmeasurable"
    assert "does not fit the device's memory" in relative.message
    absolute = run(tmp_path / "absolute", Budget.parse({"peak_memory": "60kB"}), evaluate=tight)
    assert absolute.status == "accepted"
    assert absolute.best is not None
    assert (absolute.best.figures["peak_memory"].upper or 1e9) <= 60_000


def test_a_dense_model_within_the_budget_is_confirmed_and_accepted(tmp_path: Path) -> None:
    result = run(tmp_path, Budget.parse({"size": "10MB"}))
    assert result.status == "accepted"
    assert result.best is not None
    assert result.best.candidate.is_dense
    assert result.trials == 2


@pytest.mark.parametrize("outcome", ["THROTTLED", "LOST", "BUSY", "TIMEOUT", "REBOOTED"])
def test_a_failed_measurement_is_tried_again(tmp_path: Path, outcome: str) -> None:
    evaluate, called = failing(at=2, times=2, outcome=outcome)
    pauses: list[float] = []
    result = run(tmp_path / "failing", evaluate=evaluate, pauses=pauses)
    assert result.status == "accepted"
    assert called.count(2) == 3
    assert pauses == [2.0, 10.0]
    assert result == run(tmp_path / "smooth")
    lines = [json.loads(line) for line in (tmp_path / "failing" / "journal.jsonl").read_text().splitlines()]
    attempts = [line["outcome"] for line in lines if line["kind"] == "attempt" and line["number"] == 2]
    assert attempts == [outcome, outcome]


def test_one_crash_is_tried_again(tmp_path: Path) -> None:
    evaluate, called = failing(at=2, times=1, outcome="CRASHED")
    assert run(tmp_path / "failing", evaluate=evaluate) == run(tmp_path / "smooth")
    assert called.count(2) == 2


@pytest.mark.parametrize("factory", [Uniform, Greedy])
def test_a_network_that_crashes_the_runtime_twice_is_ruled_out(tmp_path: Path, factory: StrategyFactory) -> None:
    evaluate, called = failing(at=2, times=99, outcome="CRASHED")
    result = run(tmp_path, factory=factory, evaluate=evaluate)
    assert result.status == "accepted"
    assert called.count(2) == 2
    assert result.ruled_out == ((2, "it crashed the runtime, twice: on purpose"),)
    crashed = read_trials(tmp_path)[2]
    assert crashed.outcome == "CRASHED"
    assert result.best is not None
    assert result.best.candidate != crashed.candidate
    assert codec.from_json(json.loads(json.dumps(codec.to_json(result)))) == result
    assert run(tmp_path, factory=factory, resume=True) == result


def test_a_dense_model_that_crashes_the_runtime_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasureError, match="CRASHED: on purpose"):
        run(tmp_path, evaluate=failing(at=0, times=99, outcome="CRASHED")[0])


@pytest.mark.parametrize(("outcome", "tries"), [("LOST", 3), ("NO_RUNTIME", 1), ("NO_SPACE", 1)])
def test_after_some_failures_the_run_ends_unmeasurable_and_resumes(tmp_path: Path, outcome: str, tries: int) -> None:
    evaluate, called = failing(at=3, times=99, outcome=outcome)
    result = run(tmp_path, evaluate=evaluate)
    assert result.status == "unmeasurable"
    assert result.exit_code == 3
    assert called == [0, 1, 2] + [3] * tries
    assert outcome in result.message
    assert "--resume" in result.message
    assert result.trials == 3
    resumed = run(tmp_path, resume=True)
    assert resumed.status == "accepted"
    assert [trial.number for trial in read_trials(tmp_path)] == list(range(resumed.trials))


def test_a_lost_target_is_an_attempt_and_its_hint_is_kept(tmp_path: Path) -> None:
    calls: list[int] = []

    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        calls.append(number)
        if number == 1:
            raise TargetError("the board is gone", hint="plug it in", outcome="LOST")
        return NETWORK(candidate, stage, number)

    result = run(tmp_path, evaluate=evaluate)
    assert result.status == "unmeasurable"
    assert "LOST: the board is gone (plug it in)" in result.message
    assert calls == [0, 1, 1, 1]


def test_an_unmeasurable_dense_model_is_an_error_and_resumes(tmp_path: Path) -> None:
    evaluate, _ = failing(at=0, times=99, outcome="THROTTLED")
    with pytest.raises(CannotMeasureError, match="dense model: trial 0 could not be measured: THROTTLED") as caught:
        run(tmp_path, evaluate=evaluate)
    assert caught.value.exit_code == 3
    assert run(tmp_path, resume=True).status == "accepted"


@pytest.mark.parametrize(
    "error", [VerificationError("conv1 differs"), StorageError("disk full"), KeyboardInterrupt(), ValueError("bug")]
)
def test_what_stops_a_run_passes_through_and_leaves_it_resumable(tmp_path: Path, error: BaseException) -> None:
    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        if number == 4:
            raise error
        return NETWORK(candidate, stage, number)

    with pytest.raises(type(error)) as caught:
        run(tmp_path / "stopped", evaluate=evaluate)
    assert caught.value is error
    assert len(read_trials(tmp_path / "stopped")) == 4
    assert run(tmp_path / "stopped", resume=True) == run(tmp_path / "smooth")


@pytest.mark.parametrize("factory", [Uniform, Greedy])
def test_a_finished_run_resumes_to_the_same_result_without_a_trial(tmp_path: Path, factory: StrategyFactory) -> None:
    def never(candidate: Candidate, stage: Stage, number: int) -> Trial:
        raise AssertionError(f"trial {number} again")

    first = run(tmp_path, factory=factory)
    assert run(tmp_path, factory=factory, evaluate=never, resume=True) == first


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    run(tmp_path, factory=Uniform)
    with pytest.raises(StorageError, match="trial 1 is measure"):
        run(tmp_path, factory=Greedy, resume=True)


def test_max_trials_ends_the_search_and_is_said(tmp_path: Path) -> None:
    result = run(tmp_path, max_trials=3)
    assert result.status == "infeasible"
    assert result.trials == 3
    assert "max_trials = 3" in result.message


def test_max_trials_does_not_count_screening(tmp_path: Path) -> None:
    result = run(tmp_path, factory=Greedy, max_trials=4)
    stages = [trial.stage for trial in read_trials(tmp_path)]
    assert len([stage for stage in stages if stage is not Stage.SCREEN]) <= 4
    assert Stage.SCREEN in stages
    assert result.trials == len(stages)


def test_estimates_inconclusive_bounds_and_measure_trials_are_never_accepted(tmp_path: Path) -> None:
    good = NETWORK(Candidate(), Stage.FINAL, 1).figures
    small = {**good, "size": Figure(10.0, 10.0)}
    candidates = [Candidate({"layer0": tuple(range(width))}) for width in (8, 9, 10, 11)]
    figures = {
        candidates[0].id: small,
        candidates[1].id: {**good, "size": Figure(10.0, 10.0, kind="estimated")},
        candidates[2].id: {**good, "size": Figure(10.0, None)},
        candidates[3].id: {**good, "size": Figure(10.0, 2e6)},
    }
    stages = [Stage.MEASURE, Stage.FINAL, Stage.FINAL, Stage.FINAL]

    class Fixed:
        def __init__(self) -> None:
            self.proposals = [Proposal(c, s) for c, s in zip(candidates, stages, strict=True)]

        def ask(self) -> Sequence[Proposal]:
            proposals, self.proposals = self.proposals, []
            return proposals

        def tell(self, trial: Trial) -> None:
            assert trial.candidate.id in figures

    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        return Trial(number, stage, candidate, "OK", figures.get(candidate.id, good))

    budget = Budget.parse({"size": "1kB"})
    with Journal.open(tmp_path, {}) as journal:
        result = search(lambda dense: Fixed(), evaluate, journal, budget)
    assert result.status == "infeasible"
    assert result.trials == 5


def test_of_several_accepted_trials_the_most_accurate_is_best(tmp_path: Path) -> None:
    candidates = [Candidate({"layer0": tuple(range(width))}) for width in (8, 9, 10)]
    accuracies = dict(zip([c.id for c in candidates], (0.8, 0.9, 0.85), strict=True))

    class Fixed:
        def __init__(self) -> None:
            self.proposals = [Proposal(c, Stage.FINAL) for c in candidates]

        def ask(self) -> Sequence[Proposal]:
            proposals, self.proposals = self.proposals, []
            return proposals

        def tell(self, trial: Trial) -> None:
            assert trial.stage is Stage.FINAL

    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        accuracy = accuracies.get(candidate.id, 0.95)
        return Trial(number, stage, candidate, "OK", {"accuracy": Figure(accuracy), "size": Figure(10.0, 10.0)})

    with Journal.open(tmp_path, {}) as journal:
        result = search(lambda dense: Fixed(), evaluate, journal, Budget.parse({"size": "1kB"}))
    assert result.best is not None
    assert result.best.number == 2
