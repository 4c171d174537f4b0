"""`edgeprune diff A B`: two runs, files, packages or findings of `check` side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.errors import UnreadableError, UsageError
from edgeprune.package.manifest import SCHEMA as PACKAGE
from edgeprune.pipeline.structure import STRUCTURE
from edgeprune.pipeline.subject import recorded, subject_of
from edgeprune.records import gate as gates
from edgeprune.records.candidate import Candidate
from edgeprune.records.difference import Difference, compared, pairs
from edgeprune.records.figures import Figure
from edgeprune.records.gate import Origin, Reading
from edgeprune.records.lock import lock_of
from edgeprune.records.structure import Structure

__all__ = ["Side", "diff", "side_of"]

_MANIFEST = "manifest.json"
_SIDES = "name a run's folder, a project, a package, an exported file, or what `edgeprune check --json` wrote"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two, as far as it is known. `inputs` is flat: "search.seed", "source/task.py", "versions.torch"."""

    reading: Reading
    facts: Mapping[str, Any] = field(default_factory=dict)  # params, macs, candidate
    candidate: Candidate | None = None
    structure: Structure | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    is_run: bool = False


def diff(a: Path, b: Path) -> Difference:
    """B against A; nothing is measured. Raises UsageError where one cannot be compared, or does not read."""
    first, second = side_of(a), side_of(b)
    one, other = first.reading, second.reading
    device = pairs(_device(one), _device(other), common=True)
    alike = not [pair for pair in device if pair.name in one.origin.device]
    names = {name: None for reading in (one, other) for name in reading.figures}
    per, widths = _widths(first, second)
    known = first.is_run and second.is_run
    return Difference(
        a=str(a),
        b=str(b),
        figures=tuple(
            compared(
                name,
                (one.figures.get(name), one.lower.get(name)),
                (other.figures.get(name), other.lower.get(name)),
                comparable=alike,
            )
            for name in names
        ),
        artifact=pairs(
            {"sha256": one.sha256, **first.facts}, {"sha256": other.sha256, **second.facts}, common=not known
        ),
        candidate=_candidates(first.candidate, second.candidate),
        widths=pairs(*widths),
        per=per,
        inputs=pairs(first.inputs, second.inputs, common=not known),
        device=device,
        notes=_notes(first, second, alike=alike),
    )


def side_of(path: Path) -> Side:
    """What a path names; raises UsageError."""
    if path.is_dir() and (path / _MANIFEST).is_file():
        return _of_package(path)
    if path.suffix == ".json" and path.name != "result.json":
        return Side(gates.from_json(_json(path)))
    subject = subject_of(path)
    reading = recorded(subject)
    if subject.result is None or subject.result.best is None or subject.run_dir is None:
        return Side(reading)
    lock = lock_of(subject.result, subject.artifact)
    asked = subject.result.provenance.get("inputs", {})
    best = subject.result.best
    return Side(
        reading,
        {name: value for name, value in _facts(lock).items() if value is not None},
        best.candidate,
        _structure(subject.run_dir / STRUCTURE),
        {**_flat(asked), **{name: digest for name, digest in lock.inputs.items() if name != "settings"}},
        is_run=True,
    )


def _of_package(folder: Path) -> Side:
    data = _json(folder / _MANIFEST)
    if not isinstance(data, dict) or data.get("schema") != PACKAGE:
        raise UsageError(f"{folder / _MANIFEST} is not the manifest of a package ({PACKAGE})", hint="package it again")
    try:
        models = data["models"]
        if len(models) != 1:
            names = ", ".join(model["identifier"] for model in models)
            raise UsageError(
                f"{folder} holds several models: {names}", hint="compare the runs, or packages of one model"
            )
        model = models[0]
        device = dict(model["device"])
        origin = Origin("recorded", "OK", profile=str(device.pop("profile", "")), device=device)
        figures = {name: Figure(**figure) for name, figure in model["figures"].items()}
        reading = Reading(str(folder), model["file"], model["sha256"], figures, {}, origin)
        versions = {f"versions.{name}": version for name, version in model["versions"].items()}
        facts = {name: model[name] for name in ("candidate", "params", "macs") if model[name] is not None}
        return Side(reading, facts, inputs={**model["inputs_sha256"], **versions})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableError(
            f"{folder / _MANIFEST} is damaged: {type(error).__name__}: {error}", hint="package it again"
        ) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path} cannot be read: {error}", hint=_SIDES) from error


def _facts(lock: Any) -> dict[str, Any]:
    return {"candidate": lock.candidate, "params": lock.params, "macs": lock.macs}


def _structure(path: Path) -> Structure | None:
    """The run's layers; a run of an earlier version did not write them."""
    return Structure.from_json(_json(path)) if path.is_file() else None


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _device(reading: Reading) -> dict[str, Any]:
    origin = reading.origin
    named = {"profile": origin.profile, "targets": ", ".join(origin.targets)}
    return {**origin.device, **{name: value for name, value in named.items() if value}}


def _candidates(a: Candidate | None, b: Candidate | None) -> tuple[Any, ...]:
    """Blocks that are dropped, and sparse weights; widths are told apart."""
    if a is None or b is None:
        return ()
    return pairs(
        {"dropped blocks": sorted(a.dropped_blocks), "sparsity": dict(sorted(a.sparsity.items()))},
        {"dropped blocks": sorted(b.dropped_blocks), "sparsity": dict(sorted(b.sparsity.items()))},
    )


def _widths(a: Side, b: Side) -> tuple[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Outputs per layer where both know their layers, else kept units per group; what is not named keeps all."""
    if a.candidate is None or b.candidate is None:
        return "layer", ({}, {})
    sides = ((a.structure, a.candidate), (b.structure, b.candidate))
    layers = [
        {layer.name: layer.kept(candidate) for layer in structure.layers}
        for structure, candidate in sides
        if structure is not None
    ]
    if len(layers) == len(sides):
        return "layer", (layers[0], layers[1])
    first, second = (
        {
            name: len(candidate.kept[name]) if name in candidate.kept else "all"
            for name in {**a.candidate.kept, **b.candidate.kept}
        }
        for candidate in (a.candidate, b.candidate)
    )
    return "group", (first, second)


def _notes(a: Side, b: Side, *, alike: bool) -> tuple[str, ...]:
    notes = []
    if not alike:
        notes.append("the devices differ: only size and accuracy compare")
    elif a.reading.sha256 != b.reading.sha256 and a.reading.lower and b.reading.lower:
        notes.append(
            "measured at two times: a latency that changed by less than 5 % is no difference; "
            "`edgeprune measure FILE --against FILE` runs both in turn, and tells smaller ones"
        )
    if a.reading.sha256 == b.reading.sha256:
        again = a.reading.origin.started_at != b.reading.origin.started_at
        notes.append("both are the same file" + (", measured at two times" if again else ""))
    return tuple(notes)
