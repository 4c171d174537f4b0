"""A trial: one candidate taken through surgery, recovery, export and measurement, to a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure

__all__ = ["CONTRADICTED", "INCONCLUSIVE", "MEASURED_AGAIN", "Job", "Stage", "Trial"]

# The attempts at a trial whose measurement was done again for it, in the journal.
CONTRADICTED = "CONTRADICTED"
INCONCLUSIVE = "INCONCLUSIVE"
MEASURED_AGAIN = "measured_again"  # among a trial's details: why, for each time


class Stage(str, Enum):
    """How far a trial goes: after surgery and verification, which recovery, and whether it is measured."""

    SCREEN = "screen"  # quick recovery (batch-norm re-estimation or reconstruction), accuracy
    TUNE = "tune"  # short fine-tuning, accuracy: what ranks candidates before one is finished
    MEASURE = "measure"  # as SCREEN, and export, parity, measurement on the target
    FINAL = "final"  # the whole fine-tuning with distillation, accuracy, export, parity, measurement

    @property
    def is_measured(self) -> bool:
        """True where the device measures the candidate."""
        return self in (Stage.MEASURE, Stage.FINAL)


@dataclass(frozen=True, slots=True)
class Job:
    """A trial that is to be done, under the number that it will have."""

    number: int
    stage: Stage
    candidate: Candidate = field(hash=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of one trial. `number` counts from 0 (the dense baseline) in the order of the journal."""

    number: int
    stage: Stage
    candidate: Candidate
    outcome: str  # a measurement Outcome's value; "OK" where nothing was measured and nothing failed
    figures: Mapping[str, Figure]
    message: str = ""
    seconds: float = 0.0
    artifact: str | None = None  # path inside the run folder
    details: Mapping[str, Any] = field(default_factory=dict)  # params, macs, verification error, parity error

    @property
    def measurements(self) -> int:
        """How often the device measured it: again where a time contradicted what was known, or concluded nothing."""
        return self.stage.is_measured + len(self.details.get(MEASURED_AGAIN, ()))
