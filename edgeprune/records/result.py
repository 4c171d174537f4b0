"""The result of a run: what was asked, what was reached, and by which trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeprune.records.budget import Budget, BudgetCheck
from edgeprune.records.explanation import Explanation
from edgeprune.records.trial import Trial

__all__ = ["SCHEMA", "Result", "Status"]

SCHEMA = "edgeprune.result/1"

Status = Literal["accepted", "infeasible", "unmeasurable"]
_EXIT_CODES: dict[Status, int] = {"accepted": 0, "infeasible": 4, "unmeasurable": 3}


@dataclass(frozen=True, slots=True)
class Result:
    """`best` is the accepted trial, or the closest where nothing was accepted (None where nothing was measured).

    `reachable` holds, per figure of a limit that was not met, the smallest value that any measured trial reached
    (for accuracy the highest of those within the device's limits), with that trial's number. `ruled_out` names the
    trials whose network the device could not run at all, and why.
    `explanation` is what a strategy that plans has to say.
    """

    status: Status
    budget: Budget
    dense: Trial
    best: Trial | None
    check: BudgetCheck | None
    trials: int
    reachable: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    ruled_out: tuple[tuple[int, str], ...] = ()
    seed: int = 0
    strategy: str = ""
    seconds: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    explanation: Explanation | None = None

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES[self.status]
