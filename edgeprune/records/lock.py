"""`edgeprune.lock`: what a run chose, from what inputs, by sha256. Packaging reads it and the artifact, and no more.

It names no folder but its own and no device by its address, so it can be kept under version control and handed on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.figures import Figure, Figures
from edgeprune.records.result import Result

__all__ = ["FILE", "SCHEMA", "Lock", "from_json", "lock_of", "to_json"]

SCHEMA = "edgeprune.lock/1"
FILE = "edgeprune.lock"  # in the run's folder

_PATH = re.compile(r"[A-Za-z0-9._/-]+")  # what stands in every build file as it is
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEVICE = ("profile", "board", "cpu", "arch", "runtime", "runtime_version", "threads")


@dataclass(frozen=True, slots=True)
class Lock:
    """What was accepted. `artifact.path` is relative to the lock's folder.

    `figures` are those that the budget was checked against, each measured or estimated, on `device`;
    `inputs` are digests: of the dense model's weights, the settings, and each source file of the task.
    """

    name: str  # the task's: "Digits"
    candidate: str  # its id
    artifact: Artifact
    budget: Mapping[str, Any]
    figures: Figures
    dense: Figures = field(default_factory=dict)
    device: Mapping[str, Any] = field(
        default_factory=dict
    )  # profile, board, cpu, arch, runtime and its version, threads
    inputs: Mapping[str, str] = field(default_factory=dict)  # "model", "settings", "source/task.py": sha256
    versions: Mapping[str, str] = field(default_factory=dict)  # edgeprune, torch, onnx ... that made it
    params: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None  # estimated, float32: the largest sum of activations alive at once, at batch 1

    @property
    def edgeprune(self) -> str:
        """The version of edgeprune that made it."""
        return self.versions.get("edgeprune", "unknown")


def lock_of(result: Result, artifact: Artifact) -> Lock:
    """The lock of an accepted run; `artifact.path` is relative to the run's folder."""
    if result.best is None:
        raise ValueError("nothing was accepted")
    best, facts = result.best, result.provenance
    inputs: dict[str, Any] = dict(facts.get("inputs") or {})
    versions = {name: str(version) for name, version in dict(inputs.get("versions") or {}).items()}
    digests = {"settings": _digest({k: v for k, v in inputs.items() if k not in ("model", "versions")})}
    if isinstance(inputs.get("model"), str):
        digests["model"] = inputs["model"]
    sources = result.dense.details.get("sources") or {}
    digests |= {f"source/{name}": str(digest) for name, digest in sorted(sources.items())}
    measured_on = dict(facts.get("measured_on") or {})
    return Lock(
        name=str(dict(inputs.get("task") or {}).get("name", "")).rpartition(":")[2] or "model",
        candidate=best.candidate.id,
        artifact=artifact,
        budget=result.budget.to_json(),
        figures=dict(best.figures),
        dense=dict(result.dense.figures),
        device={name: measured_on[name] for name in _DEVICE if measured_on.get(name) not in (None, "")},
        inputs=digests,
        versions=versions,
        params=best.details.get("params"),
        macs=best.details.get("macs"),
        activation_bytes=best.details.get("peak_activation_bytes"),
    )


def to_json(lock: Lock) -> dict[str, Any]:
    """Plain data with the schema's version."""
    artifact = lock.artifact
    return {
        "schema": SCHEMA,
        "name": lock.name,
        "candidate": lock.candidate,
        "artifact": {
            "file": artifact.path.as_posix(),
            "format": artifact.format,
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
            "inputs": [spec.to_json() for spec in artifact.inputs],
            "outputs": [spec.to_json() for spec in artifact.outputs],
            "provenance": dict(artifact.provenance),
        },
        "budget": dict(lock.budget),
        "figures": {name: asdict(figure) for name, figure in lock.figures.items()},
        "dense": {name: asdict(figure) for name, figure in lock.dense.items()},
        "device": dict(lock.device),
        "inputs": dict(lock.inputs),
        "versions": dict(lock.versions),
        "params": lock.params,
        "macs": lock.macs,
        "activation_bytes": lock.activation_bytes,
    }


def from_json(data: Any, path: Path | str = FILE) -> Lock:
    """The lock that `to_json` wrote; raises UsageError, naming `path`, where it is damaged or leads elsewhere."""
    hint = "go on with the run once more (edgeprune run PROJECT --resume --run-dir RUN): it writes the lock again"
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if schema != SCHEMA:
        raise UsageError(f"{path} is not a lock of schema {SCHEMA}: {schema!r}", hint=hint)
    try:
        found = data["artifact"]
        file = PurePosixPath(found["file"])
        if file.is_absolute() or ".." in file.parts or not _PATH.fullmatch(found["file"]):
            raise UsageError(f"{path} names a file outside its folder: {found['file']!r}", hint=hint)
        if not _SHA256.fullmatch(found["sha256"]):
            raise ValueError(f"{found['sha256']!r} is not a sha256")
        return Lock(
            name=str(data["name"]),
            candidate=str(data["candidate"]),
            artifact=Artifact(
                path=Path(file),
                format=str(found["format"]),
                sha256=str(found["sha256"]),
                size_bytes=int(found["size_bytes"]),
                inputs=tuple(TensorSpec.from_json(spec) for spec in found["inputs"]),
                outputs=tuple(TensorSpec.from_json(spec) for spec in found["outputs"]),
                provenance=dict(found["provenance"]),
            ),
            budget=dict(data["budget"]),
            figures={name: Figure(**figure) for name, figure in data["figures"].items()},
            dense={name: Figure(**figure) for name, figure in data["dense"].items()},
            device=dict(data["device"]),
            inputs={name: str(digest) for name, digest in data["inputs"].items()},
            versions={name: str(version) for name, version in data["versions"].items()},
            params=data["params"],
            macs=data["macs"],
            activation_bytes=data["activation_bytes"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is damaged: {type(error).__name__}: {error}", hint=hint) from error


def _digest(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
