"""LiteRT or tflite-runtime on this machine, in an interpreter that has it."""

from __future__ import annotations

from typing import Any

from edgeprune.export.environment import ENVIRONMENTS, Installation, find, locate
from edgeprune.export.program_runner import ProgramRunner
from edgeprune.records.artifact import Artifact

__all__ = ["TfliteRunner"]

_OLD = "tflite-runtime"


class TfliteRunner(ProgramRunner):
    """Runs a .tflite artifact; see `runner.Runner`.

    `installation` is where the runtime is: by default LiteRT, of the environment that exports.
    """

    environment = "tflite"
    program = "tflite_run"

    def __init__(
        self, artifact: Artifact, installation: Installation | None = None, runtime: str = "ai-edge-litert"
    ) -> None:
        self.distribution = runtime
        super().__init__(artifact, installation)
        self.do("load")

    @classmethod
    def others(cls, artifact: Artifact) -> list[TfliteRunner]:
        """In tflite-runtime, where its environment is there: what runs in LiteRT may be garbage in it."""
        if locate(ENVIRONMENTS[_OLD]) is None:
            return []
        return [cls(artifact, find(_OLD), _OLD)]

    def request(self) -> dict[str, Any]:
        """See `ProgramRunner.request`."""
        return {**super().request(), "runtime": self.distribution}
