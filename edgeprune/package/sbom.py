"""The bill of materials of a package: CycloneDX 1.6 JSON with a machine-learning-model component per model.

Specification: ECMA-424, https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from edgeprune.package.base import Contents, Model
from edgeprune.package.facts import memory_facts, quantised
from edgeprune.records.artifact import TensorSpec

__all__ = ["bill_of_materials"]


def bill_of_materials(contents: Contents) -> dict[str, Any]:
    """The same for the same contents; it carries a time only where SOURCE_DATE_EPOCH gives one."""
    models = [_component(model, contents) for model in contents.models]
    root = {
        "type": "data" if len(models) > 1 else "machine-learning-model",
        "bom-ref": f"package:{contents.name}",
        "name": contents.name,
        "version": contents.version,
    }
    metadata: dict[str, Any] = {
        "tools": {"components": [{"type": "application", "name": "edgeprune", "version": version("edgeprune")}]},
        "component": root,
    }
    if contents.epoch:
        metadata["timestamp"] = datetime.fromtimestamp(contents.epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_serial(contents)}",
        "version": 1,
        "metadata": metadata,
        "components": models,
        "dependencies": [
            {"ref": root["bom-ref"], "dependsOn": [model["bom-ref"] for model in models]},
            *({"ref": model["bom-ref"]} for model in models),
        ],
    }


def _serial(contents: Contents) -> uuid.UUID:
    digests = "".join(model.artifact.sha256 for model in contents.models)
    named = f"{contents.name} {contents.version} {digests}"
    return uuid.uuid5(uuid.NAMESPACE_OID, f"edgeprune {hashlib.sha256(named.encode()).hexdigest()}")


def _component(model: Model, contents: Contents) -> dict[str, Any]:
    lock, artifact = model.lock, model.artifact
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.identifier}",
        "name": model.identifier,
        "version": contents.version,
        "hashes": [{"alg": "SHA-256", "content": artifact.sha256}],
        "modelCard": {
            "modelParameters": {
                "inputs": [{"format": _format(spec)} for spec in artifact.inputs],
                "outputs": [{"format": _format(spec)} for spec in artifact.outputs],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(model)},
        },
        "properties": _properties(model),
    }
    if contents.licence is not None:
        component["licenses"] = [
            {
                "license": {
                    "name": "LICENSE",
                    "text": {"contentType": "text/plain", "content": contents.licence},
                }
            }
        ]
    if "model" in lock.inputs:
        component["pedigree"] = {
            "ancestors": [
                {
                    "type": "machine-learning-model",
                    "name": f"{model.identifier}, before pruning",
                    "hashes": [{"alg": "SHA-256", "content": lock.inputs["model"]}],
                }
            ],
            "notes": f"Pruned by edgeprune {lock.edgeprune}, candidate {lock.candidate}. The hash of the ancestor is "
            "over its parameters and buffers by name.",
        }
    return component


def _format(spec: TensorSpec) -> str:
    shape = "x".join(str(size) for size in spec.shape) or "scalar"
    if spec.scale is None:
        return f"{spec.name}: {spec.dtype} {shape}"
    return f"{spec.name}: {spec.dtype} {shape}, scale {spec.scale!r}, zero point {spec.zero_point or 0}"


def _metrics(model: Model) -> list[dict[str, Any]]:
    """What was measured, in the units of budgets, with the upper confidence bound."""
    found = []
    for name, figure in sorted(model.lock.figures.items()):
        if figure.value is None:
            continue
        metric: dict[str, Any] = {"type": f"{name} ({_unit(name)}, {figure.kind})", "value": repr(figure.value)}
        if figure.upper is not None and figure.upper != figure.value:
            metric["confidenceInterval"] = {"upperBound": repr(figure.upper)}
        found.append(metric)
    return found


def _unit(name: str) -> str:
    if name.startswith("latency"):
        return "ms"
    return {"peak_memory": "bytes", "size": "bytes", "energy": "mJ"}.get(name, "fraction")


def _properties(model: Model) -> list[dict[str, str]]:
    lock = model.lock
    facts = {
        "format": model.artifact.format,
        "quantised": quantised(lock),
        "size_bytes": model.artifact.size_bytes,
        "candidate": lock.candidate,
        "params": lock.params,
        "macs": lock.macs,
        **{f"{fact.name}_bytes": fact.value for fact in memory_facts(lock)},
        **{f"device.{name}": value for name, value in lock.device.items()},
        **{f"version.{name}": value for name, value in lock.versions.items()},
        **{f"sha256.{name}": digest for name, digest in lock.inputs.items()},
    }
    return [
        {"name": f"edgeprune:{name}", "value": str(value)} for name, value in sorted(facts.items()) if value is not None
    ]
