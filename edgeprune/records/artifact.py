"""A deployable file and its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["SCHEMA", "Artifact", "TensorSpec"]

SCHEMA = "edgeprune.artifact/1"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output: `shape` holds an int per dimension, or a name where it varies (the batch)."""

    name: str
    dtype: str  # numpy's name: "float32"
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a runtime executes, described by the manifest beside it (`<file>.manifest.json`).

    Devices choose the runtime by the file's suffix: .onnx, .tflite, .pte, or .ncnn, a zip that is not compressed and
    holds the one .param and the one .bin of an ncnn model.
    """

    path: Path
    format: str  # "onnx"
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)  # exporter, versions, opset, candidate id, parity
