"""The seam of runners: an artifact, loaded by its own runtime on this machine, computes outputs from inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.records.artifact import Artifact

__all__ = ["Array", "Runner", "open_runner", "other_runners"]

Array = NDArray[Any]


class Runner(Protocol):
    """A loaded artifact, on one thread. It is made from the artifact alone: `Runner(artifact)`."""

    runtime: str  # name and version: "onnxruntime 1.31.1"

    def __call__(self, feeds: Mapping[str, Array], what: str = "") -> list[Array]:
        """The outputs in the artifact's order, of inputs by name, both as the file has them (see `layout`).

        Where the artifact fixes its batch, any multiple of that is taken, and run one by one. `what` names the inputs
        in the ParityError that is raised where the runtime cannot run it.
        """

    def close(self) -> None:
        """Give back what it holds; it may be called again, and is called in the end anyway."""


def open_runner(artifact: Artifact) -> Runner:
    """What runs the artifact. Raises ParityError where its runtime cannot load it.

    Raises UsageError where no runtime for the format is here, with what brings one.
    """
    known = registry.names("runners")
    if artifact.format not in known:
        hint = f"formats that can be run here: {', '.join(known)}"
        raise UsageError(f"no runtime here runs format {artifact.format!r}", hint=hint)
    runner: Runner = registry.resolve("runners", artifact.format)(artifact)
    return runner


def other_runners(artifact: Artifact) -> list[Runner]:
    """What else here runs the format: runtimes that a board may have in place of the first. Raises as `open_runner`."""
    others = getattr(registry.resolve("runners", artifact.format), "others", None)
    found: list[Runner] = [] if others is None else others(artifact)
    return found
