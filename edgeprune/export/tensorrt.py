"""TensorRT: an ONNX model and how its engine is built; the engine is built on the board, by `trtexec`.

    export: {format: tensorrt}                            # 32 bits, without TF32
    export: {format: {name: tensorrt, precision: fp16}}   # layers in 16 bits where TensorRT finds that faster

An engine fits one version of TensorRT on one kind of chip, so that none is shipped. A `.tensorrt` file is a zip, not
compressed, of model.onnx and build.json. By hand: `unzip model.tensorrt`, and the command line of the manifest.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgeprune import atomic
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.base import resized
from edgeprune.export.onnx import OnnxExporter
from edgeprune.export.onnx_runner import OnnxRunner
from edgeprune.export.stored import stored_zip
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["TensorRtExporter", "TensorRtRunner"]

_ARGUMENTS = {"fp32": ["--noTF32"], "tf32": [], "fp16": ["--fp16"]}
_SCHEMA = "edgeprune.tensorrt/1"


class TensorRtExporter:
    """`.tensorrt`, for a batch of one where the batch is free: engines are fastest for fixed shapes."""

    format = "tensorrt"
    suffix = ".tensorrt"

    def __init__(self, precision: str = "fp32") -> None:
        if precision not in _ARGUMENTS:
            raise UsageError(
                f"tensorrt: {precision!r} is no precision", hint=f"precisions: {', '.join(sorted(_ARGUMENTS))}"
            )
        self.precision = precision

    def export(
        self,
        module: nn.Module,
        example_inputs: tuple[Tensor, ...],
        path: Path,
        *,
        batch_dynamic: bool = True,
        provenance: Mapping[str, Any] | None = None,
        input_names: tuple[str, ...] = (),
        output_names: tuple[str, ...] = (),
    ) -> Artifact:
        """See `Exporter.export`."""
        arguments = _ARGUMENTS[self.precision]
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            onnx = OnnxExporter().export(
                module,
                resized(example_inputs, 1) if batch_dynamic else example_inputs,
                Path(folder) / "model.onnx",
                batch_dynamic=False,
                provenance=provenance,
                input_names=input_names,
                output_names=output_names,
            )
            content = onnx.path.read_bytes()
        recipe = json.dumps({"schema": _SCHEMA, "arguments": arguments}, indent=2) + "\n"
        data = stored_zip({"model.onnx": content, "build.json": recipe.encode()})
        atomic.write_bytes(path, data)
        command = ["trtexec", "--onnx=model.onnx", "--saveEngine=model.engine", *arguments]
        return manifest.artifact(
            path,
            data,
            format=self.format,
            inputs=onnx.inputs,
            outputs=onnx.outputs,
            provenance={
                **onnx.provenance,
                "precision": self.precision,
                "build": command,
                "onnx_sha256": hashlib.sha256(content).hexdigest(),
                "parity_by": "ONNX Runtime: TensorRT runs on the board alone",
            },
        )


class TensorRtRunner:
    """The ONNX model in it, in ONNX Runtime; see `runner.Runner`. What TensorRT makes of it, a board can tell."""

    def __init__(self, artifact: Artifact) -> None:
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            path = Path(folder) / f"{artifact.path.stem}.onnx"
            with zipfile.ZipFile(artifact.path) as archive:
                path.write_bytes(archive.read("model.onnx"))
            self._run = OnnxRunner(replace(artifact, path=path, format="onnx"))
        self.runtime = f"{self._run.runtime} in place of TensorRT"

    def __call__(self, feeds: Mapping[str, NDArray[Any]], what: str = "") -> list[NDArray[Any]]:
        """See `Runner.__call__`."""
        return self._run(feeds, what)

    def close(self) -> None:
        """Nothing is held."""
        self._run.close()
