from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeprune.records.budget import Budget, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Evaluate, Proposal
from edgeprune.search.journal import read_trials
from edgeprune.search.uniform import Uniform
from tests.search.looping import FEASIBLE, NETWORK, run


def slow(times: int, factor: float = 1.2) -> tuple[Evaluate, list[tuple[Stage, int]]]:
    """An evaluate whose FINAL trials are measured too slow, each for so many times; and what it was called with."""
    called: list[tuple[Stage, int]] = []

    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        called.append((stage, number))
        trial = NETWORK(candidate, stage, number)
        latency = trial.figures["latency.p50"]
        if stage is Stage.FINAL and called.count((stage, number)) <= times:
            slower = Figure((latency.value or 0) * factor, (latency.upper or 0) * factor)
            return replace(trial, figures={**trial.figures, "latency.p50": slower})
        return trial

    return evaluate, called


def attempts(folder: Path) -> list[tuple[int, str, str]]:
    """Number, outcome and message of what was tried again, from the journal."""
    entries = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
    return [(e["number"], e["outcome"], e["message"]) for e in entries if e["kind"] == "attempt"]


def test_a_final_that_contradicts_the_measurement_of_the_same_network_is_measured_again(tmp_path: Path) -> None:
    as_it_is = run(tmp_path / "usual")
    evaluate, called = slow(times=1)
    result = run(tmp_path / "outlier", evaluate=evaluate)
    assert result.status == "accepted"
    assert result.best is not None
    assert as_it_is.best is not None
    assert result.best.figures == as_it_is.best.figures
    assert called[-2:] == [(Stage.FINAL, result.best.number)] * 2
    ((number, outcome, message),) = attempts(tmp_path / "outlier")
    assert (number, outcome) == (result.best.number, "CONTRADICTED")
    assert re.fullmatch(
        r"latency\.p50 97\.9 us contradicts by 13\.\d% what is known of this network, .* to .*", message
    )
    assert result.best.details["measured_again"] == message
    assert (result.best.measurements, as_it_is.best.measurements) == (2, 1)
    assert attempts(tmp_path / "usual") == []


def test_the_second_measurement_decides_where_it_says_the_same(tmp_path: Path) -> None:
    evaluate, called = slow(times=2)
    result = run(tmp_path, evaluate=evaluate)
    finals = [trial for trial in read_trials(tmp_path) if trial.stage is Stage.FINAL]
    for trial in finals:
        assert called.count((Stage.FINAL, trial.number)) == 2
    assert FEASIBLE.check(finals[0].figures, result.dense.figures).state is State.VIOLATED
    assert result.best != finals[0]


def test_a_difference_that_is_usual_is_left_alone(tmp_path: Path) -> None:
    evaluate, called = slow(times=1, factor=1.02)
    run(tmp_path, evaluate=evaluate)
    assert len(called) == len(set(called))
    assert attempts(tmp_path) == []


def test_a_figure_without_a_limit_is_not_looked_at(tmp_path: Path) -> None:
    def wandering(candidate: Candidate, stage: Stage, number: int) -> Trial:
        trial = NETWORK(candidate, stage, number)
        value = 1.5 if stage is Stage.FINAL else 1.0
        p99 = Figure(value, value * 1.001)
        return replace(trial, figures={**trial.figures, "latency.p99": p99}) if stage.is_measured else trial

    assert run(tmp_path / "any", evaluate=wandering).status == "accepted"
    assert attempts(tmp_path / "any") == []
    limited = Budget.parse({"latency": {"p50": "60% of dense", "p99": "2ms"}})
    assert run(tmp_path / "limited", limited, evaluate=wandering).status == "accepted"
    assert len(attempts(tmp_path / "limited")) == 1


def test_a_difference_within_wide_intervals_is_left_alone(tmp_path: Path) -> None:
    def noisy(candidate: Candidate, stage: Stage, number: int) -> Trial:
        trial = NETWORK(candidate, stage, number)
        figure = trial.figures.get("size")
        value = (figure.value or 0) * (1.1 if stage is Stage.FINAL else 1.0) if figure is not None else 0
        return replace(trial, figures={**trial.figures, "energy": Figure(value, value * 1.06)}) if value else trial

    run(tmp_path, Budget.parse({"latency": {"p50": "60% of dense"}, "energy": "1000J"}), evaluate=noisy)
    assert any(trial.stage is Stage.FINAL for trial in read_trials(tmp_path))
    assert attempts(tmp_path) == []


def test_a_figure_of_nothing_contradicts_nothing(tmp_path: Path) -> None:
    def empty(candidate: Candidate, stage: Stage, number: int) -> Trial:
        trial = NETWORK(candidate, stage, number)
        return (
            replace(trial, figures={**trial.figures, "peak_memory": Figure(0.0, 0.0)}) if stage.is_measured else trial
        )

    budget = Budget.parse({"latency": {"p50": "60% of dense"}, "peak_memory": "1MB"})
    assert run(tmp_path, budget, evaluate=empty).status == "accepted"
    assert attempts(tmp_path) == []


def test_what_a_strategy_did_not_expect_is_measured_again(tmp_path: Path) -> None:
    class Sure(Uniform):
        def ask(self) -> Sequence[Proposal]:
            return [
                replace(p, expected={"latency.p50": (0.0, 1e-9), "size": (0.0, 1e9)}) if p.stage.is_measured else p
                for p in super().ask()
            ]

    calls: list[int] = []

    def evaluate(candidate: Candidate, stage: Stage, number: int) -> Trial:
        calls.append(number)
        return NETWORK(candidate, stage, number)

    result = run(tmp_path, factory=Sure, evaluate=evaluate)
    assert result.status == "accepted"
    measured = [trial.number for trial in read_trials(tmp_path) if trial.stage.is_measured and trial.number]
    twice = sorted({number for number in calls if calls.count(number) == 2})
    assert [number for number, _, _ in attempts(tmp_path)] == twice
    assert set(twice) <= set(measured)
    assert len(twice) >= len(measured) - 1  # a final is expected to be as its network was measured
