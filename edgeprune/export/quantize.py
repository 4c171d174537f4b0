"""Quantise an ONNX file to int8 by ONNX Runtime: static, calibrated by the range of values (QDQ form)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.base import FloatModel, Scheme, quantised_provenance
from edgeprune.export.onnx import clean
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

__all__ = ["SCHEMES", "OnnxQuantizer", "quantize"]


SCHEMES = (
    Scheme("per-tensor", "int8 per tensor, unsigned activations", per_channel=False, signed=False),
    Scheme("per-channel", "int8 per channel, signed activations", per_channel=True, signed=True),
)


class OnnxQuantizer:
    """`.onnx` in QDQ form, from the float file."""

    format = "onnx"
    schemes: tuple[Scheme, ...] = SCHEMES

    def quantize(
        self, model: FloatModel, path: Path, batches: Sequence[tuple[Tensor, ...]], scheme: Scheme
    ) -> Artifact:
        """See `Quantizer.quantize`."""
        return quantize(model.artifact, path, batches, scheme)


def quantize(artifact: Artifact, path: Path, batches: Sequence[tuple[Tensor, ...]], scheme: Scheme) -> Artifact:
    """Write the int8 form of an .onnx artifact to `path`, calibrated on `batches` of its inputs (in their order).

    Inputs and outputs stay float. Raises UsageError where ONNX Runtime cannot quantise the file, or finds nothing in it
    to quantise.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            names = [spec.name for spec in artifact.inputs]
            self.feeds = ({n: t.detach().numpy() for n, t in zip(names, batch, strict=True)} for batch in batches)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    if artifact.format != "onnx":
        raise UsageError(f"{artifact.path.name}: only .onnx files are quantised, not {artifact.format!r}")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        written = Path(folder) / "int8.onnx"
        try:
            with _quiet():
                quantize_static(
                    str(artifact.path),
                    str(written),
                    Reader(),
                    quant_format=QuantFormat.QDQ,
                    per_channel=scheme.per_channel,
                    activation_type=QuantType.QInt8 if scheme.signed else QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
        except Exception as error:  # its own kinds share no base
            raise UsageError(
                f"ONNX Runtime cannot quantise {artifact.path.name}: {str(error).splitlines()[0]}",
                hint="the operator or input named above is not supported in int8",
            ) from error
        model = _with_short_names(clean(onnx.load(written)))
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise UsageError(f"{artifact.path.name}: ONNX Runtime finds nothing in it to quantise")
    data = model.SerializeToString(deterministic=True)
    atomic.write_bytes(path, data)
    inputs, outputs = manifest.tensor_specs(model)
    provenance = quantised_provenance(artifact, scheme, len(batches))
    return manifest.artifact(path, data, format="onnx", inputs=inputs, outputs=outputs, provenance=provenance)


def _with_short_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with nothing but numbers for the names inside it, and without shapes that the runtime infers.

    int8 adds three tensors and two nodes to each one there was, all with long names: a tenth of a small file.
    """
    graph = model.graph
    if any(field.g.node or field.graphs for node in graph.node for field in node.attribute):
        return model  # a graph inside refers to names of this one
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    names[""] = ""  # an input that is left out
    inner = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    free = (number for number in map(str, count()) if number not in names)
    for name in inner:
        if name not in names:
            names[name] = next(free)
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for number, node in enumerate(graph.node):
        node.name = str(number)
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    del graph.value_info[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice on pre-processing: what edgeprune exports is folded already."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
