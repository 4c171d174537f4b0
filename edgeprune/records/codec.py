"""Records as JSON and back. What goes to disk carries a schema version, and an unknown one is refused.

`to_json` takes any of Trial, Measurement, Candidate, BudgetCheck and Result; `from_json` reads by `schema`.
Floats survive the round trip bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from edgeprune.errors import StorageError
from edgeprune.records import candidate, measurement, result
from edgeprune.records.budget import Budget, BudgetCheck, Limit, LimitCheck, State
from edgeprune.records.candidate import Candidate
from edgeprune.records.explanation import Explanation, Infeasibility, Reach
from edgeprune.records.figures import Figure, Figures
from edgeprune.records.measurement import Energy, Latency, Measurement, Memory, Modes, Outcome, Provenance, Window
from edgeprune.records.result import Result
from edgeprune.records.samples import pack, unpack
from edgeprune.records.trial import Stage, Trial
from edgeprune.units import Drop

__all__ = [
    "CHECK_SCHEMA",
    "TRIAL_SCHEMA",
    "Record",
    "figures_from_json",
    "figures_to_json",
    "from_json",
    "to_json",
    "trial_from_json",
]

TRIAL_SCHEMA = "edgeprune.trial/1"
CHECK_SCHEMA = "edgeprune.budget_check/1"

Record = Trial | Measurement | Candidate | BudgetCheck | Result


def to_json(record: Record) -> dict[str, Any]:
    """Plain data (dicts, lists, strings, numbers) with a schema version; raises TypeError for anything else."""
    if isinstance(record, Trial):
        return _trial_to_json(record)
    if isinstance(record, Measurement):
        return _measurement_to_json(record)
    if isinstance(record, Candidate):
        return record.to_json()
    if isinstance(record, BudgetCheck):
        return _check_to_json(record)
    if isinstance(record, Result):
        return _result_to_json(record)
    raise TypeError(f"no JSON form for {type(record).__name__}")


def from_json(data: Mapping[str, Any]) -> Record:
    """The record that `to_json` wrote; raises StorageError for an unknown schema, and for missing or wrong fields."""
    schema = data.get("schema")
    reader = _READERS.get(str(schema))
    if reader is None:
        hint = f"written by another version of edgeprune? known: {', '.join(_READERS)}"
        raise StorageError(f"unknown schema {schema!r}", hint=hint)
    try:
        return reader(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"a damaged record of {schema}: {type(error).__name__}: {error}") from error


def figures_to_json(figures: Figures) -> dict[str, Any]:
    """Per name: value, upper, kind, missing."""
    return {name: asdict(figure) for name, figure in figures.items()}


def figures_from_json(data: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that `figures_to_json` wrote."""
    return {name: Figure(**figure) for name, figure in data.items()}


def _trial_to_json(trial: Trial) -> dict[str, Any]:
    return {
        "schema": TRIAL_SCHEMA,
        "number": trial.number,
        "stage": trial.stage.value,
        "outcome": trial.outcome,
        "message": trial.message,
        "seconds": trial.seconds,
        "artifact": trial.artifact,
        "candidate": trial.candidate.to_json(),
        "figures": figures_to_json(trial.figures),
        "details": dict(trial.details),
    }


def trial_from_json(data: Mapping[str, Any]) -> Trial:
    """The trial that `to_json` wrote; raises StorageError, and KeyError, TypeError, ValueError where it is damaged."""
    if data["schema"] != TRIAL_SCHEMA:
        raise StorageError(f"unknown schema {data['schema']!r}", hint="written by another version of edgeprune?")
    return Trial(
        number=data["number"],
        stage=Stage(data["stage"]),
        candidate=_candidate_from_json(data["candidate"]),
        outcome=data["outcome"],
        figures=figures_from_json(data["figures"]),
        message=data["message"],
        seconds=data["seconds"],
        artifact=data["artifact"],
        details=dict(data["details"]),
    )


def _candidate_from_json(data: Mapping[str, Any]) -> Candidate:
    if data.get("schema") != candidate.SCHEMA:
        raise ValueError(f"candidate of schema {data.get('schema')!r}")
    return Candidate.from_json(data)


def _measurement_to_json(record: Measurement) -> dict[str, Any]:
    data = {"schema": measurement.SCHEMA, **asdict(record)}
    data["outcome"] = record.outcome.value
    data["warnings"] = list(record.warnings)
    if record.latency is not None:
        data["latency"]["raw_ms"] = pack(record.latency.raw_ms)
    data["sustained"] = [asdict(window) for window in record.sustained]
    return data


def _measurement_from_json(data: Mapping[str, Any]) -> Measurement:
    latency, memory, energy, provenance = (data[part] for part in ("latency", "memory", "energy", "provenance"))
    return Measurement(
        artifact_sha256=data["artifact_sha256"],
        outcome=Outcome(data["outcome"]),
        provenance=None
        if provenance is None
        else Provenance(**{**provenance, "cores": tuple(provenance.get("cores", ()))}),
        latency=None if latency is None else _latency_from_json(latency),
        memory=None if memory is None else Memory(**memory),
        energy=None if energy is None else _energy_from_json(energy),
        missing=dict(data["missing"]),
        conditions=dict(data["conditions"]),
        warnings=tuple(data["warnings"]),
        message=data["message"],
        seconds=data["seconds"],
        sustained=tuple(Window(**window) for window in data.get("sustained", ())),
    )


def _latency_from_json(data: Mapping[str, Any]) -> Latency:
    modes = data.get("modes")
    found = None if modes is None else Modes(**modes)
    return Latency(**{**data, "raw_ms": unpack(data["raw_ms"]), "modes": found})


def _energy_from_json(data: Mapping[str, Any]) -> Energy:
    known = dict(data)
    for name in ("rails", "raw"):
        known[name] = tuple(tuple(v) if isinstance(v, list) else v for v in known.get(name, ()))
    known["windows"] = {name: (begin, end) for name, (begin, end) in known.get("windows", {}).items()}
    return Energy(**known)


def _check_to_json(check: BudgetCheck) -> dict[str, Any]:
    binding = check.binding
    return {
        "schema": CHECK_SCHEMA,
        "state": check.state.value,
        "binding": None if binding is None else binding.limit.metric,
        "limits": [
            {
                "limit": asdict(entry.limit),
                "state": entry.state.value,
                "bound": entry.bound,
                "value": entry.value,
                "upper": entry.upper,
                "headroom": entry.headroom,
                "reason": entry.reason,
            }
            for entry in check.limits
        ],
    }


def _check_from_json(data: Mapping[str, Any]) -> BudgetCheck:
    if data.get("schema") != CHECK_SCHEMA:
        raise ValueError(f"budget check of schema {data.get('schema')!r}")
    checks = []
    for entry in data["limits"]:
        drop = entry["limit"]["drop"]
        limit = Limit(**{**entry["limit"], "drop": None if drop is None else Drop(**drop)})
        checks.append(LimitCheck(**{**entry, "limit": limit, "state": State(entry["state"])}))
    return BudgetCheck(tuple(checks))


def _result_to_json(record: Result) -> dict[str, Any]:
    return {
        "schema": result.SCHEMA,
        "status": record.status,
        "exit_code": record.exit_code,
        "message": record.message,
        "budget": record.budget.to_json(),
        "check": None if record.check is None else _check_to_json(record.check),
        "dense": _trial_to_json(record.dense),
        "best": None if record.best is None else _trial_to_json(record.best),
        "reachable": {name: {"value": value, "trial": number} for name, (value, number) in record.reachable.items()},
        "ruled_out": [{"trial": number, "reason": reason} for number, reason in record.ruled_out],
        "trials": record.trials,
        "strategy": record.strategy,
        "seed": record.seed,
        "seconds": record.seconds,
        "provenance": dict(record.provenance),
        "explanation": None if record.explanation is None else asdict(record.explanation),
    }


def _result_from_json(data: Mapping[str, Any]) -> Result:
    return Result(
        status=data["status"],
        budget=Budget.parse(data["budget"]),
        dense=trial_from_json(data["dense"]),
        best=None if data["best"] is None else trial_from_json(data["best"]),
        check=None if data["check"] is None else _check_from_json(data["check"]),
        trials=data["trials"],
        reachable={name: (entry["value"], entry["trial"]) for name, entry in data["reachable"].items()},
        ruled_out=tuple((entry["trial"], entry["reason"]) for entry in data.get("ruled_out", ())),
        seed=data["seed"],
        strategy=data["strategy"],
        seconds=data["seconds"],
        provenance=dict(data["provenance"]),
        message=data["message"],
        explanation=_explanation_from_json(data.get("explanation")),
    )


def _explanation_from_json(data: Mapping[str, Any] | None) -> Explanation | None:
    if data is None:
        return None
    why = data["infeasibility"]
    if why is not None:
        why = Infeasibility(**{**why, "reach": tuple(Reach(**reach) for reach in why["reach"])})
    return Explanation(tuple(data["binding"]), tuple(data["unplanned"]), why)


_READERS: dict[str, Callable[[Mapping[str, Any]], Record]] = {
    TRIAL_SCHEMA: trial_from_json,
    candidate.SCHEMA: _candidate_from_json,
    measurement.SCHEMA: _measurement_from_json,
    "edgeprune.measurement/1": _measurement_from_json,
    CHECK_SCHEMA: _check_from_json,
    result.SCHEMA: _result_from_json,
}
