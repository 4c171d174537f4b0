"""A gate's finding: one model's figures against limits and a baseline, where the figures are from, and pass or fail.

What is missing or inconclusive never passes. As JSON it is also what the next one takes as its baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgeprune.errors import UnreadableError
from edgeprune.records import codec
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import BudgetCheck, LimitCheck, State
from edgeprune.records.figures import Figure
from edgeprune.records.gate_policy import Level
from edgeprune.records.measurement import Measurement, Outcome, Provenance

__all__ = [
    "NOT_MEASURED",
    "SCHEMA",
    "Gate",
    "GateCheck",
    "Origin",
    "Reading",
    "Status",
    "device_of",
    "from_json",
    "lower_ends",
    "to_json",
]

SCHEMA = "edgeprune.gate/1"
NOT_MEASURED = "NOT_MEASURED"  # in place of an outcome: there was no attempt

Status = Literal["passed", "failed", "unknown"]
_DEVICE = ("board", "cpu", "cpus", "arch")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a reading's figures come from. `age_s` is None where nothing was measured at any time.

    `device` holds what must be the same for figures to compare: board, cpu, cpus, arch, runtime, its version, threads,
    cores; it is empty where no device said so.
    """

    source: Literal["measured", "recorded"]
    outcome: str
    message: str = ""
    hint: str = ""
    started_at: str = ""  # ISO 8601, UTC
    age_s: float | None = None
    targets: tuple[str, ...] = ()
    profile: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """One model's figures. `lower` are the lower ends of their 95 % intervals, where there are any."""

    name: str  # as the user named it
    file: str  # of the artifact
    sha256: str
    figures: Mapping[str, Figure]
    lower: Mapping[str, float]
    origin: Origin


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One limit, or one allowed regression against the baseline; `reference` is the figure that it is relative to."""

    kind: Literal["budget", "regression"]
    level: Level
    entry: LimitCheck
    reference: float | None = None

    @property
    def name(self) -> str:
        """The limit's metric; of a regression, the figure."""
        return self.entry.limit.figure if self.kind == "regression" else self.entry.limit.metric

    @property
    def is_met(self) -> bool:
        return self.entry.state is State.MET

    @property
    def fails(self) -> bool:
        """True where the gate does not pass because of it."""
        return self.level == "error" and not self.is_met


@dataclass(frozen=True, slots=True)
class Gate:
    """All checks of one model. `baseline` is what it was compared with; `notes` say what else a reader should know."""

    reading: Reading
    checks: tuple[GateCheck, ...]
    dense: Mapping[str, Figure] = field(default_factory=dict)
    baseline: Reading | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_measured(self) -> bool:
        """False where the device could not be reached, or the attempt to measure failed: then nothing passes.

        Where nothing was ever measured, what needs no device may pass.
        """
        return self.reading.origin.outcome in (Outcome.OK.value, Outcome.OOM.value, NOT_MEASURED)

    @property
    def status(self) -> Status:
        """What fails goes before what is not known; a model that the device cannot run fails."""
        failing = {check.entry.state for check in self.checks if check.fails}
        if State.VIOLATED in failing or self.reading.origin.outcome == Outcome.OOM.value:
            return "failed"
        return "unknown" if failing or not self.is_measured else "passed"

    @property
    def exit_code(self) -> int:
        return {"passed": 0, "failed": 1, "unknown": 3}[self.status]


def device_of(provenance: Provenance | None) -> dict[str, Any]:
    """What of a measurement's provenance must be the same for its figures to compare with others."""
    if provenance is None:
        return {}
    return {
        **{name: provenance.machine.get(name) for name in _DEVICE},
        "runtime": provenance.runtime,
        "runtime_version": provenance.runtime_version,
        "threads": provenance.threads,
        "cores": list(provenance.cores),
    }


def lower_ends(measurement: Measurement | None, artifact: Artifact | None, accuracy: float | None) -> dict[str, float]:
    """By figure, the lower end of its 95 % interval; of memory, less the spread between workers."""
    found: dict[str, float] = {}
    if accuracy is not None:
        found["accuracy"] = accuracy
    if artifact is not None:
        found["size"] = float(artifact.size_bytes)
    if measurement is None or measurement.outcome is not Outcome.OK:
        return found
    if measurement.latency is not None:
        found |= {f"latency.{name}": value for name, value in measurement.latency.lower_ms.items()}
    if measurement.memory is not None:
        memory = measurement.memory
        peak = memory.model_peak_bytes + (memory.nvmap_peak_bytes or 0)
        found["peak_memory"] = float(max(0, peak - memory.noise_bytes))
    if measurement.energy is not None and measurement.energy.net_lower_mj is not None:
        found["energy"] = measurement.energy.net_lower_mj
    return found


def to_json(gate: Gate) -> dict[str, Any]:
    """Plain data with a schema version."""
    return {
        "schema": SCHEMA,
        "status": gate.status,
        "exit_code": gate.exit_code,
        "checks": [_check_to_json(check) for check in gate.checks],
        "reading": _reading_to_json(gate.reading),
        "dense": codec.figures_to_json(gate.dense),
        "baseline": None if gate.baseline is None else _reading_to_json(gate.baseline),
        "notes": list(gate.notes),
    }


def from_json(data: Any) -> Reading:
    """The reading of what `to_json` wrote; raises UnreadableError."""
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        schema = data.get("schema") if isinstance(data, Mapping) else None
        raise UnreadableError(
            f"not what `check --json` writes (schema {SCHEMA}), but {schema or 'something else'}",
            hint="write it with: edgeprune check RUN --json > main.json",
        )
    try:
        return _reading_from_json(data["reading"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableError(f"a damaged record of {SCHEMA}: {type(error).__name__}: {error}") from error


def _check_to_json(check: GateCheck) -> dict[str, Any]:
    entry = codec.to_json(BudgetCheck((check.entry,)))["limits"][0]
    return {"kind": check.kind, "level": check.level, "name": check.name, **entry, "reference": check.reference}


def _reading_to_json(reading: Reading) -> dict[str, Any]:
    return {
        "name": reading.name,
        "file": reading.file,
        "sha256": reading.sha256,
        "figures": codec.figures_to_json(reading.figures),
        "lower": dict(reading.lower),
        "origin": {
            **asdict(reading.origin),
            "targets": list(reading.origin.targets),
            "warnings": list(reading.origin.warnings),
        },
    }


def _reading_from_json(data: Mapping[str, Any]) -> Reading:
    origin = data["origin"]
    if not isinstance(origin["device"], Mapping):
        raise ValueError(f"{origin['device']!r} is no device")
    return Reading(
        name=str(data["name"]),
        file=str(data["file"]),
        sha256=str(data["sha256"]),
        figures={name: _figure(figure) for name, figure in data["figures"].items()},
        lower={name: float(value) for name, value in data["lower"].items()},
        origin=Origin(**{**origin, "targets": tuple(origin["targets"]), "warnings": tuple(origin["warnings"])}),
    )


def _figure(data: Mapping[str, Any]) -> Figure:
    """The figure, whose numbers are numbers; raises ValueError."""
    for name in ("value", "upper"):
        number = data[name]
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
            raise ValueError(f"{number!r} is no figure")
    return Figure(**data)
