"""The manifest beside an artifact, `<file>.manifest.json`: what the file is, by sha256, and where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import StorageError, UsageError
from edgeprune.records.artifact import SCHEMA, Artifact, TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["artifact", "describe", "manifest_path", "read", "tensor_specs", "write"]

_FORMATS = {".onnx": "onnx", ".tflite": "tflite", ".pte": "executorch"}


def manifest_path(path: Path) -> Path:
    """Where the manifest of an artifact lies."""
    return path.with_name(path.name + ".manifest.json")


def artifact(
    path: Path,
    data: bytes,
    *,
    format: str,  # noqa: A002  the record's field
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    provenance: Mapping[str, Any] | None = None,
) -> Artifact:
    """The record of a file with this content."""
    return Artifact(
        path=path,
        format=format,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        inputs=inputs,
        outputs=outputs,
        provenance=dict(provenance or {}),
    )


def write(artifact: Artifact) -> Path:
    """Write the manifest beside the artifact, atomically; its path. It holds no folder: the two can move together."""
    path = manifest_path(artifact.path)
    data = {
        "schema": SCHEMA,
        "file": artifact.path.name,
        "format": artifact.format,
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "inputs": [spec.to_json() for spec in artifact.inputs],
        "outputs": [spec.to_json() for spec in artifact.outputs],
        "provenance": dict(artifact.provenance),
    }
    atomic.write_text(path, json.dumps(data, indent=2, sort_keys=True) + "\n")
    return path


def read(path: Path) -> Artifact:
    """The artifact at `path`, checked against its manifest; a file without one is described by itself.

    Raises UsageError where the file is missing, is not what the manifest says, or the manifest is malformed.
    """
    source = manifest_path(path)
    if not source.exists():
        return describe(path)
    content = _content(path)
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise UsageError(f"{source} is not a manifest of schema {SCHEMA}", hint="export the model again")
        found = Artifact(
            path=path,
            format=str(data["format"]),
            sha256=str(data["sha256"]),
            size_bytes=int(data["size_bytes"]),
            inputs=tuple(TensorSpec.from_json(spec) for spec in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(spec) for spec in data["outputs"]),
            provenance=dict(data["provenance"]),
        )
    except OSError as error:
        raise StorageError(f"cannot read {source}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{source} is malformed: {error!r}", hint="delete it or export the model again") from error
    digest = hashlib.sha256(content).hexdigest()
    if (digest, len(content)) != (found.sha256, found.size_bytes):
        raise UsageError(
            f"{path} is not the file that its manifest describes: sha256 {digest[:16]}…, expected {found.sha256[:16]}…",
            hint=f"export the model again, or delete {source.name} to describe the file as it is",
        )
    return found


def describe(path: Path) -> Artifact:
    """A file that has no manifest (made by another tool), by what it says of itself; raises UsageError."""
    content = _content(path)
    file_format = _FORMATS.get(path.suffix.lower())
    if file_format != "onnx":
        raise UsageError(
            f"{path} has no manifest {manifest_path(path).name}",
            hint="export it with edgeprune: of files without a manifest, only .onnx files describe themselves",
        )
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own DecodeError
        raise UsageError(f"{path} is not an ONNX file: {error}") from error
    if not model.graph.output:
        raise UsageError(f"{path} is not an ONNX file: it has no graph with outputs")
    inputs, outputs = tensor_specs(model)
    provenance = {"producer": f"{model.producer_name} {model.producer_version}".strip() or "unknown"}
    return artifact(path, content, format="onnx", inputs=inputs, outputs=outputs, provenance=provenance)


def tensor_specs(model: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of an ONNX model; initializers that older files also list as inputs are left out."""
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = tuple(_spec_of(value) for value in model.graph.input if value.name not in weights)
    return inputs, tuple(_spec_of(value) for value in model.graph.output)


def _spec_of(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else "unknown"
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"dim_{axis}"
        for axis, dim in enumerate(tensor.shape.dim)
    )
    return TensorSpec(value.name, str(dtype), shape)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
