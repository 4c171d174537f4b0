"""Strategies written as a generator: `yield` a batch of proposals, get their trials back."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress

from edgeprune.records.trial import Trial
from edgeprune.search.base import Proposal

__all__ = ["Batch", "Script", "ScriptedStrategy"]

Batch = Sequence[Proposal]
Script = Generator[Batch, tuple[Trial, ...], None]


class ScriptedStrategy:
    """Drives a script by ask and tell. Subclasses write `script`, which starts at the first `ask`."""

    def __init__(self) -> None:
        """Nothing asked, nothing told."""
        self._script: Script | None = None
        self._asked: tuple[Proposal, ...] = ()
        self._told: list[Trial] = []

    def script(self) -> Script:
        """The search, from its first proposals to its end."""
        raise NotImplementedError

    def ask(self) -> Sequence[Proposal]:
        """What of the current batch has no trial yet, or the next batch; empty at the end."""
        if len(self._told) < len(self._asked):
            return self._asked[len(self._told) :]
        batch: Batch = ()
        with suppress(StopIteration):
            if self._script is None:
                self._script = self.script()
                batch = next(self._script)
            else:
                batch = self._script.send(tuple(self._told))
        self._asked, self._told = tuple(batch), []
        return self._asked

    def tell(self, trial: Trial) -> None:
        """The trial of the next proposal in the order of asking; anything else is a ValueError."""
        if len(self._told) >= len(self._asked):
            raise ValueError(f"trial {trial.number} was not asked for")
        proposal = self._asked[len(self._told)]
        if trial.candidate.id != proposal.candidate.id or trial.stage is not proposal.stage:
            raise ValueError(f"trial {trial.number} is not of the proposal that is next")
        self._told.append(trial)
