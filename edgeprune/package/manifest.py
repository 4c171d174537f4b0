"""`manifest.json`: what a package holds, for programs. Its JSON Schema is published (`edgeprune package --schema`)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from edgeprune.package.base import Contents, Model
from edgeprune.package.facts import memory_facts, quantised

__all__ = ["SCHEMA", "manifest", "manifest_schema"]

SCHEMA = "edgeprune.package/1"


def manifest(kind: str, contents: Contents) -> dict[str, Any]:
    """The manifest of a package for `kind` ("c", "zephyr"), as plain data."""
    return {
        "schema": SCHEMA,
        "name": contents.name,
        "version": contents.version,
        "kind": kind,
        "edgeprune": version("edgeprune"),
        "alignment": contents.alignment,
        "section": contents.section,
        "licence": None if contents.licence is None else "LICENSE",
        "models": [_model(model) for model in contents.models],
    }


def _model(model: Model) -> dict[str, Any]:
    lock, artifact = model.lock, model.artifact
    return {
        "identifier": model.identifier,
        "file": model.file_name,
        "format": artifact.format,
        "quantised": quantised(lock),
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "stored_bytes": None if model.sparse is None else len(model.sparse),
        "inputs": [spec.to_json() for spec in artifact.inputs],
        "outputs": [spec.to_json() for spec in artifact.outputs],
        "memory": {
            fact.name: {"bytes": fact.value, "kind": fact.kind, "source": fact.source} for fact in memory_facts(lock)
        },
        "figures": {
            name: {"value": figure.value, "upper": figure.upper, "kind": figure.kind}
            for name, figure in sorted(lock.figures.items())
            if figure.value is not None
        },
        "budget": dict(lock.budget),
        "device": dict(lock.device),
        "candidate": lock.candidate,
        "params": lock.params,
        "macs": lock.macs,
        "inputs_sha256": dict(lock.inputs),
        "versions": dict(lock.versions),
    }


def manifest_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of manifest.json."""
    model = _object(
        identifier={"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]*$"},
        file={"type": "string", "pattern": "^[A-Za-z0-9._-]+$", "description": "what the artifact is called"},
        format={"type": "string", "examples": ["onnx", "tflite", "executorch", "ncnn"]},
        quantised={**_or_null("string"), "description": "how; null where it computes in floating point"},
        sha256=_SHA256,
        size_bytes=_COUNT,
        stored_bytes={**_or_null("integer"), "description": "as a .sparse file; null where it is stored as it is"},
        inputs={"type": "array", "items": _TENSOR},
        outputs={"type": "array", "items": _TENSOR},
        memory={"type": "object", "additionalProperties": _object(bytes=_COUNT, kind=_KIND, source={"type": "string"})},
        figures={
            "type": "object",
            "description": "by the names of budgets: latency.* in ms, size and peak_memory in bytes, energy in mJ, "
            "accuracy as a fraction; upper is the 95 % upper confidence bound",
            "additionalProperties": _object(value={"type": "number"}, upper=_or_null("number"), kind=_KIND),
        },
        budget={"type": "object", "description": "as in a project file"},
        device={"type": "object", "description": "what the measured figures are of"},
        candidate={"type": "string"},
        params=_or_null("integer"),
        macs=_or_null("integer"),
        inputs_sha256={
            "type": "object",
            "description": "of what the run was made from: model, settings, source/FILE",
            "additionalProperties": _SHA256,
        },
        versions={"type": "object", "additionalProperties": {"type": "string"}},
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('.', ':').replace('/', ':')}",
        "title": "manifest of a package of edgeprune",
        **_object(
            schema={"const": SCHEMA},
            name={"type": "string", "pattern": "^[a-z][a-z0-9-]*$"},
            version={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
            kind={"type": "string"},
            edgeprune={"type": "string"},
            alignment={"type": "integer", "minimum": 1},
            section=_or_null("string"),
            licence=_or_null("string"),
            models={"type": "array", "items": model, "minItems": 1},
        ),
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}


_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": "integer", "minimum": 0}
_KIND = {"enum": ["measured", "estimated"]}
_TENSOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "dtype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": ["integer", "string"]}, "description": "a name where it is free"},
        "scale": {"type": "number", "description": "real = scale * (value - zero_point)"},
        "zero_point": {"type": "integer"},
    },
    "required": ["name", "dtype", "shape"],
    "additionalProperties": False,
}
