"""Two artifacts on one device, run in turn: is one faster, and by how much?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgeprune.records.measurement import Outcome, Provenance

__all__ = ["SCHEMA", "Comparison", "Verdict"]

SCHEMA = "edgeprune.comparison/1"
Verdict = Literal["faster", "slower", "no difference"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The latency of `artifact` over that of `against`: `ratio` with its 95 % interval, 0.8 is a fifth faster.

    `verdict` is None, and `message` says why, where the outcome is not OK. `pairs_ms` holds, for each worker process,
    the medians of neighbouring blocks of (artifact, against).
    """

    artifact_sha256: str
    against_sha256: str
    outcome: Outcome
    provenance: Provenance | None
    verdict: Verdict | None = None
    ratio: float | None = None
    lower: float | None = None
    upper: float | None = None
    p50_ms: tuple[float, float] | None = None  # medians of the blocks' medians: of `artifact`, of `against`
    pairs_ms: tuple[tuple[tuple[float, float], ...], ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data with a schema version."""
        return {"schema": SCHEMA, **asdict(self), "outcome": self.outcome.value}
