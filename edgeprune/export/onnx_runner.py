"""ONNX Runtime on this machine's processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import ParityError
from edgeprune.export.layout import fixed_batch
from edgeprune.records.artifact import Artifact

__all__ = ["OnnxRunner"]

_HINT = "the runtime cannot use this file; please report the model with this message"


class OnnxRunner:
    """Runs an .onnx artifact; see `runner.Runner`."""

    def __init__(self, artifact: Artifact) -> None:
        import onnxruntime

        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._artifact = artifact
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors; they are raised as well
        try:
            self._session = onnxruntime.InferenceSession(str(artifact.path), options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no other base
            raise ParityError(f"ONNX Runtime cannot load {artifact.path.name}: {error}", hint=_HINT) from error

    def __call__(self, feeds: Mapping[str, NDArray[Any]], what: str = "") -> list[NDArray[Any]]:
        """See `Runner.__call__`."""
        try:
            found = [self._session.run(None, part) for part in self._parts(feeds)]
            columns = list(zip(*found, strict=True))
            return [np.asarray(column[0]) if len(column) == 1 else np.concatenate(column) for column in columns]
        except Exception as error:
            case = f" ({what})" if what else ""
            name = self._artifact.path.name
            raise ParityError(f"ONNX Runtime cannot run {name}{case}: {error}", hint=_HINT) from error

    def _parts(self, feeds: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
        """The rows, as many at a time as the file has where it fixes them."""
        size = fixed_batch(self._artifact)
        batched = {spec.name for spec in self._artifact.inputs if spec.shape[:1] == (size,)}
        rows = max((len(array) for name, array in feeds.items() if name in batched), default=1)
        if size is None or rows <= size or rows % size:
            return [dict(feeds)]
        return [
            {
                name: array[start : start + size] if name in batched and len(array) == rows else array
                for name, array in feeds.items()
            }
            for start in range(0, rows, size)
        ]

    def close(self) -> None:
        """Nothing is held."""
