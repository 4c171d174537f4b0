from __future__ import annotations

import pytest

from edgeprune.records.candidate import Candidate
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import Proposal
from edgeprune.search.script import Script, ScriptedStrategy

A, B = Candidate({"a": (0,)}), Candidate({"b": (0,)})


class TwoThenOne(ScriptedStrategy):
    def script(self) -> Script:
        first, second = yield [Proposal(A, Stage.SCREEN), Proposal(B, Stage.SCREEN)]
        better = max((first, second), key=lambda trial: trial.seconds)
        yield [Proposal(better.candidate, Stage.FINAL)]


def trial(candidate: Candidate, stage: Stage, seconds: float = 0.0) -> Trial:
    return Trial(1, stage, candidate, "OK", {}, seconds=seconds)


def test_a_script_gets_the_trials_of_its_batch() -> None:
    strategy = TwoThenOne()
    assert [proposal.candidate for proposal in strategy.ask()] == [A, B]
    strategy.tell(trial(A, Stage.SCREEN, 1.0))
    assert [proposal.candidate for proposal in strategy.ask()] == [B], "what is not told yet is asked again"
    strategy.tell(trial(B, Stage.SCREEN, 2.0))
    assert [(proposal.candidate, proposal.stage) for proposal in strategy.ask()] == [(B, Stage.FINAL)]
    strategy.tell(trial(B, Stage.FINAL))
    assert list(strategy.ask()) == []
    assert list(strategy.ask()) == []


def test_what_was_not_asked_for_is_refused() -> None:
    strategy = TwoThenOne()
    with pytest.raises(ValueError, match="was not asked for"):
        strategy.tell(trial(A, Stage.SCREEN))
    strategy.ask()
    with pytest.raises(ValueError, match="not of the proposal that is next"):
        strategy.tell(trial(B, Stage.SCREEN))
    with pytest.raises(ValueError, match="not of the proposal that is next"):
        strategy.tell(trial(A, Stage.FINAL))
