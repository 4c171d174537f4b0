"""The seams of exporters (a module in, a deployable file out) and of quantisers (its int8 form)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Exporter", "FloatModel", "Quantizer", "Scheme", "batched", "quantised_provenance", "resized"]


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


@dataclass(frozen=True, slots=True)
class Scheme:
    """How values become int8. Which is faster, and by how much less exact, depends on the processor and its kernels."""

    key: str  # in files' names and on the command line: "per-tensor"
    name: str
    per_channel: bool  # a scale per output channel of a weight, or one per weight
    signed: bool  # activations; unsigned ones have a zero point
    garbage_on: tuple[str, ...] = ()  # runtimes, by the agent's names, that are known to compute something else


@dataclass(frozen=True, slots=True, eq=False)
class FloatModel:
    """What is quantised: a module, and the float file that was made of it and checked. Quantisers use one or both."""

    module: nn.Module
    example_inputs: tuple[Tensor, ...]
    artifact: Artifact
    batch_dynamic: bool = True
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()


@runtime_checkable
class Quantizer(Protocol):
    """Makes the int8 form of one format: static, calibrated by the range of values. The same input, the same bytes."""

    format: str  # "onnx", as the exporter's
    schemes: tuple[Scheme, ...]  # that it can make; the first is the default

    def quantize(
        self, model: FloatModel, path: Path, batches: Sequence[tuple[Tensor, ...]], scheme: Scheme
    ) -> Artifact:
        """Write the int8 form of the model to `path`, atomically, calibrated on `batches` of its inputs in their order.

        Inputs and outputs of the file stay float, with the names and shapes of the float file's. The module is left as
        it was. The artifact's provenance is `quantised_provenance`. Raises UsageError where the model cannot be
        quantised, or where nothing in it can.
        """


def quantised_provenance(source: Artifact, scheme: Scheme, batches: int) -> dict[str, Any]:
    """Where an int8 file comes from: all that is known of its float file, whose sha256, the scheme, the calibration."""
    known = {name: value for name, value in source.provenance.items() if name != "parity_error"}  # of the float file
    return {**known, "quantised": scheme.name, "calibration_batches": batches, "float_sha256": source.sha256}


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
