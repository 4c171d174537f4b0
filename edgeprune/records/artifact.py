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
    """An input or output: `shape` holds an int per dimension, or a name where it varies (the batch).

    Where the file takes or gives quantised values, `scale` and `zero_point` say what they stand for:
    real = scale * (value - zero_point).
    """

    name: str
    dtype: str  # numpy's name: "float32"
    shape: tuple[int | str, ...]
    scale: float | None = None
    zero_point: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; the quantisation only where there is one."""
        data: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        if self.scale is not None:
            data |= {"scale": self.scale, "zero_point": self.zero_point or 0}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """What `to_json` wrote; raises KeyError, TypeError, ValueError where it is malformed."""
        shape = tuple(size if isinstance(size, int) else str(size) for size in data["shape"])
        scale, zero_point = data.get("scale"), data.get("zero_point")
        return cls(
            str(data["name"]),
            str(data["dtype"]),
            shape,
            None if scale is None else float(scale),
            None if zero_point is None else int(zero_point),
        )


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
