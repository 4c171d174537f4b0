"""Running an artifact in a Python of its own: what converters are called by (`program.py`) runs models as well."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import ParityError
from edgeprune.export.environment import Installation, find
from edgeprune.export.program import ProgramError, call
from edgeprune.records.artifact import Artifact, TensorSpec

__all__ = ["ExecuTorchRunner", "NcnnRunner", "ProgramRunner"]


class ProgramRunner:
    """See `runner.Runner`. The program has the operation `run`; it is called as the environment by default."""

    environment = ""
    program = ""
    distribution = ""

    def __init__(self, artifact: Artifact, installation: Installation | None = None) -> None:
        self._installation = installation or find(self.environment)
        self.runtime = f"{self.distribution} {self._installation.versions[self.distribution]}"
        self._artifact = artifact

    def __call__(self, feeds: Mapping[str, NDArray[Any]], what: str = "") -> list[NDArray[Any]]:
        """See `Runner.__call__`."""
        inputs = [spec.name for spec in self._artifact.inputs]
        outputs = [spec.name for spec in self._artifact.outputs]
        if missing := set(inputs) - set(feeds):
            raise self._failed("run", what, f"no values for the inputs {', '.join(sorted(missing))}")
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            np.savez(folder / "feeds.npz", *(feeds[own] for own in inputs))
            self.do("run", what, folder, inputs=inputs, outputs=outputs)
            with np.load(folder / "results.npz", allow_pickle=False) as results:
                return [results[f"arr_{number}"] for number in range(len(outputs))]

    def request(self) -> dict[str, Any]:
        """What the program is told of the artifact with every operation."""
        return {"model": str(self._artifact.path.absolute()), "sha256": self._artifact.sha256}

    def do(self, operation: str, what: str = "", folder: Path | None = None, **request: Any) -> None:
        """Have the program do something with the artifact; raises ParityError with what went wrong."""
        with ExitStack() as stack:
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeprune-")))
            program = self.program or self.environment
            try:
                call(self._installation, program, folder, do=operation, **self.request(), **request)
            except ProgramError as error:
                raise self._failed(operation, what, error.message, error.hint) from error

    def close(self) -> None:
        """The program ends by itself; other models may be waiting for it."""

    def _failed(self, operation: str, what: str, why: str, hint: str | None = None) -> ParityError:
        case = f" ({what})" if what else ""
        return ParityError(
            f"{self.runtime} cannot {operation} {self._artifact.path.name}{case}: {why}",
            hint=hint or "the runtime cannot use this file; please report the model with this message",
        )


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
