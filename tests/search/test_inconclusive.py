from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Evaluate
from edgeprune.search.doubt import inconclusive
from edgeprune.search.journal import read_trials
from tests.search.looping import FEASIBLE, NETWORK, attempts, run


def wide(times: int, upper: float) -> tuple[Evaluate, list[tuple[Stage, int]]]:
    """An evaluate whose FINAL trials have, so many times, an upper bound of `upper` times the limit."""
    called: list[tuple[Stage, int]] = []

    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        called.append((stage, number))
        trial = NETWORK(candidate, stage, number)
        if stage is Stage.FINAL and called.count((stage, number)) <= times:
            latency = replace(trial.figures["latency.p50"], upper=upper * LIMIT)
            return replace(trial, figures={**trial.figures, "latency.p50": latency})
        return trial

    return evaluate, called


DENSE = NETWORK(Candidate(), Stage.MEASURE, 0)
LIMIT = 0.6 * (DENSE.figures["latency.p50"].value or 0.0)


def test_a_final_that_concludes_nothing_is_measured_again(tmp_path: Path) -> None:
    as_it_is = run(tmp_path / "usual").best
    assert as_it_is is not None
    evaluate, called = wide(times=1, upper=1.001)
    result = run(tmp_path / "wide", evaluate=evaluate)
    assert result.status == "accepted"
    assert result.best is not None
    assert result.best.candidate == as_it_is.candidate
    assert called.count((Stage.FINAL, result.best.number)) == 2
    *_, (number, message) = attempts(tmp_path / "wide", "INCONCLUSIVE")
    assert number == result.best.number
    assert re.fullmatch(
        r"latency\.p50 .* us is within the limit of .* us, but its upper confidence bound exceeds it by 0\.1%", message
    )
    assert result.best.details["measured_again"] == [message]
    assert result.best.measurements == 2
    assert result.best.figures == as_it_is.figures
    assert as_it_is.measurements == 1


def test_what_still_concludes_nothing_is_not_accepted(tmp_path: Path) -> None:
    evaluate, called = wide(times=2, upper=2.0)
    result = run(tmp_path, evaluate=evaluate)
    finals = [trial for trial in read_trials(tmp_path) if trial.stage is Stage.FINAL]
    assert any(trial.measurements == 2 for trial in finals)
    for trial in finals:
        state = FEASIBLE.check(trial.figures, result.dense.figures).state
        assert (state, called.count((Stage.FINAL, trial.number))) in [(State.UNKNOWN, 2), (State.VIOLATED, 1)]
    assert result.status == "infeasible"


def test_a_contradiction_that_concludes_nothing_is_measured_a_third_time(tmp_path: Path) -> None:
    called: list[tuple[Stage, int]] = []

    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        called.append((stage, number))
        trial = NETWORK(candidate, stage, number)
        latency, times = trial.figures["latency.p50"], called.count((stage, number))
        if stage is Stage.FINAL and times < 3:
            value = (latency.value or 0) * (1.2 if times == 1 else 1.0)
            trial = replace(trial, figures={**trial.figures, "latency.p50": Figure(value, 1.3 * (latency.value or 0))})
        return trial

    result = run(tmp_path, evaluate=evaluate)
    assert result.status == "accepted"
    assert result.best is not None
    for outcome in ("CONTRADICTED", "INCONCLUSIVE"):
        assert result.best.number in [number for number, _ in attempts(tmp_path, outcome)]
    assert result.best.measurements == 3


@pytest.mark.parametrize(
    ("figures", "again"),
    [
        ({"latency.p50": Figure(0.99, 1.01), "size": Figure(5.0, 5.0)}, True),
        ({"latency.p50": Figure(0.99, 1.00), "size": Figure(5.0, 5.0)}, False),  # met
        ({"latency.p50": Figure(1.01, 1.02), "size": Figure(5.0, 5.0)}, False),  # violated
        ({"latency.p50": Figure(0.99, 1.01), "size": Figure(11.0, 11.0)}, False),  # another is
        ({"latency.p50": Figure(0.99, 1.01)}, False),  # another has no figure: a second time would not tell
        ({"latency.p50": Figure(0.99, None), "size": Figure(5.0, 5.0)}, False),  # no bound
        ({"latency.p50": Figure(0.99, 1.01), "size": Figure(5.0, 5.0), "accuracy": Figure(0.5, 0.5)}, False),
    ],
)
def test_what_is_measured_again(figures: dict[str, Figure], again: bool) -> None:
    budget = Budget.parse({"latency": {"p50": "1ms"}, "size": "10B", "accuracy": {"min": "90%"}})
    found = {"accuracy": Figure(0.95, 0.95), **figures}
    trial = Trial(1, Stage.FINAL, Candidate(), "OK", found)
    assert (inconclusive(trial, budget, {}) is not None) is again
    early = replace(trial, stage=Stage.MEASURE, figures={**found, "accuracy": Figure(0.1, 0.1)})  # not tuned yet
    expected = again or figures.get("accuracy") is not None
    assert (inconclusive(early, budget, {}) is not None) is expected
    assert inconclusive(replace(trial, stage=Stage.TUNE), budget, {}) is None
    assert inconclusive(replace(trial, outcome="OOM"), budget, {}) is None
