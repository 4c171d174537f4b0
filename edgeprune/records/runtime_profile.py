"""What a runtime's own profiler says of a whole model, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeprune.records.measurement import Outcome, Provenance

__all__ = ["SCHEMA", "NodeTiming", "RuntimeProfile"]

SCHEMA = "edgeprune.runtime_profile/1"


@dataclass(frozen=True, slots=True)
class NodeTiming:
    """One node of the graph that the runtime made of the model: fused, with its own changes of layout.

    `ns` is the interquartile mean over `runs` runs: the profiler counts whole microseconds, of which a median would
    keep the steps. Shapes are as the runtime tells them; a scalar is (), what is no tensor is left out.
    """

    name: str
    op_type: str
    provider: str
    ns: float
    runs: int
    input_shapes: tuple[tuple[int, ...], ...]  # weights included
    output_shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class RuntimeProfile:
    """A model under its runtime's profiler, in one worker. `nodes` are in the order of execution.

    `profiled_ns` and `plain_ns` are medians of a whole run with the profiler on and off: the difference is what looking
    costs. Without figures `outcome` is not OK (NO_PROFILER where the runtime has none), and `message` says why.
    """

    artifact_sha256: str
    outcome: Outcome
    provenance: Provenance | None
    nodes: tuple[NodeTiming, ...] = ()
    profiled_ns: float | None = None
    plain_ns: float | None = None
    runs: int = 0
    conditions: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0

    def by_type(self) -> dict[str, float]:
        """The time of all nodes of a type together, in ns, the longest first."""
        found: dict[str, float] = {}
        for node in self.nodes:
            found[node.op_type] = found.get(node.op_type, 0.0) + node.ns
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))

    def to_json(self) -> dict[str, Any]:
        """Plain data with a schema version."""
        return {"schema": SCHEMA, **asdict(self), "outcome": self.outcome.value}
