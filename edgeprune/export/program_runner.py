"""Running an artifact in a Python of its own: what converters are called by (`program.py`) runs models as well."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import ParityError
from edgeprune.export.environment import find
from edgeprune.export.program import ProgramError, call
from edgeprune.records.artifact import Artifact, TensorSpec

__all__ = ["ExecuTorchRunner", "NcnnRunner", "ProgramRunner"]


class ProgramRunner:
    """See `runner.Runner`. The program of the environment's name has the operation `run`."""

    environment = ""
    distribution = ""

    def __init__(self, artifact: Artifact) -> None:
        self._installation = find(self.environment)
        self.runtime = f"{self.distribution} {self._installation.versions[self.distribution]}"
        self._artifact = artifact

    def __call__(self, feeds: Mapping[str, NDArray[Any]], what: str = "") -> list[NDArray[Any]]:
        """See `Runner.__call__`."""
        inputs = [spec.name for spec in self._artifact.inputs]
        outputs = [spec.name for spec in self._artifact.outputs]
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            np.savez(folder / "feeds.npz", *(feeds[own] for own in inputs))
            try:
                call(
                    self._installation,
                    self.environment,
                    folder,
                    do="run",
                    model=str(self._artifact.path.absolute()),
                    sha256=self._artifact.sha256,
                    inputs=inputs,
                    outputs=outputs,
                )
            except ProgramError as error:
                case = f" ({what})" if what else ""
                raise ParityError(
                    f"{self.runtime} cannot run {self._artifact.path.name}{case}: {error.message}",
                    hint="the runtime cannot use this file; please report the model with this message",
                ) from error
            with np.load(folder / "results.npz", allow_pickle=False) as results:
                return [results[f"arr_{number}"] for number in range(len(outputs))]

    def close(self) -> None:
        """The program ends by itself; other models may be waiting for it."""


class NcnnRunner(ProgramRunner):
    """ncnn with 32-bit arithmetic: on a board it may use 16 bits, which is no matter of the file."""

    environment = distribution = "ncnn"

    def __call__(self, feeds: Mapping[str, NDArray[Any]], what: str = "") -> list[NDArray[Any]]:
        """See `Runner.__call__`. ncnn knows no batch: it may keep a dimension of one more, or have one less."""
        found = super().__call__(feeds, what)
        return [_as(spec, array) for spec, array in zip(self._artifact.outputs, found, strict=True)]


class ExecuTorchRunner(ProgramRunner):
    """ExecuTorch's Python runtime, with XNNPACK."""

    environment = distribution = "executorch"


def _as(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """The rows in the shape that the artifact tells, where that is the same but for dimensions of one."""
    wanted = [size for size in spec.shape[1:] if isinstance(size, int)]
    if [size for size in wanted if size != 1] != [size for size in array.shape[1:] if size != 1]:
        return array
    return array.reshape(len(array), *wanted)
