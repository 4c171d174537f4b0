"""The seam of exporters: a module in, a deployable file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Exporter", "batched", "resized"]


@runtime_checkable
class Exporter(Protocol):
    """Writes one format. The same module gives the same bytes."""

    format: str  # "onnx"
    suffix: str  # ".onnx"

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
        """Write the module in eval mode to `path`, atomically, and describe it; the module is left as it was.

        With `batch_dynamic` the batch is free, else fixed at that of the example inputs. `provenance` is kept in the
        artifact's record together with what the exporter adds. Raises UsageError where the format cannot express
        the module. `input_names` and `output_names` replace the graph's own, where they are given.
        """


def batched(example_inputs: tuple[Tensor, ...]) -> tuple[bool, ...]:
    """Which inputs carry the batch as dimension 0: those that have as many rows as the first one has."""
    rows = next((len(tensor) for tensor in example_inputs if tensor.ndim), None)
    return tuple(tensor.ndim > 0 and len(tensor) == rows for tensor in example_inputs)


def resized(example_inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
    """The example inputs at another batch size: rows repeated in turn, or cut off."""
    from edgeprune.graph.batch import repeated

    return tuple(
        repeated(tensor, batch) if carries and len(tensor) else tensor
        for tensor, carries in zip(example_inputs, batched(example_inputs), strict=True)
    )
