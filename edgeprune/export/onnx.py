"""ONNX by torch's exporter: one file, the same bytes for the same module, and nothing in it of the machine."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.export.attention import in_four_dimensions
from edgeprune.export.base import batched, resized
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = ["OnnxExporter", "clean", "translated"]

_MAX_BYTES = 2**31 - 1  # protobuf's limit for one message, and so for one ONNX file with its weights


class OnnxExporter:
    """`.onnx`, opset 20, weights in the file; inputs named as in the graph."""

    format = "onnx"
    suffix = ".onnx"
    opset = 20

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
        import onnx
        import torch

        weights = sum(value.nbytes for value in module.state_dict().values())
        if weights > _MAX_BYTES:
            raise UsageError(
                f"the model's weights take {weights / 1e9:.1f} GB, one ONNX file holds at most 2.1 GB",
                hint="prune further before the export",
            )
        training = module.training
        try:
            module.eval()
            with _translating():
                program = _program(module, example_inputs, batch_dynamic)
            model = translated(program, input_names=input_names, output_names=output_names)
        finally:
            module.train(training)
        onnx.checker.check_model(model, full_check=True)
        data = model.SerializeToString(deterministic=True)
        atomic.write_bytes(path, data)
        inputs, outputs = manifest.tensor_specs(model)
        return manifest.artifact(
            path,
            data,
            format=self.format,
            inputs=inputs,
            outputs=outputs,
            provenance={
                **(provenance or {}),
                "exporter": "torch.onnx",
                "torch": torch.__version__,
                "onnx": onnx.__version__,
                "opset": self.opset,
            },
        )


def translated(
    program: ExportedProgram, *, input_names: tuple[str, ...] = (), output_names: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """The program as ONNX, cleaned; raises UsageError where an operator has no ONNX form."""
    import torch

    with _translating():
        exported = torch.onnx.export(
            in_four_dimensions(program),
            dynamo=True,
            opset_version=OnnxExporter.opset,
            verbose=False,
            input_names=input_names or None,
            output_names=output_names or None,
        )
    if exported is None:
        raise UsageError("torch's ONNX exporter returned nothing")
    return clean(exported.model_proto)


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without documentation, stack traces and class names, and with the batch dimension called "batch"."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    batch = next((d.dim_param for i in copy.graph.input for d in i.type.tensor_type.shape.dim[:1] if d.dim_param), "")
    _clean(copy, re.compile(rf"\b{re.escape(batch)}\b") if batch else None)
    copy.producer_name = "edgeprune"
    copy.producer_version = version("edgeprune")
    return copy


def _clean(message: Any, batch: re.Pattern[str] | None) -> None:
    for name in ("doc_string", "metadata_props"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    if message.DESCRIPTOR.name == "TensorProto":
        return  # nothing below but numbers
    if message.DESCRIPTOR.name == "Dimension" and message.dim_param and batch is not None:
        message.dim_param = batch.sub("batch", message.dim_param)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                _clean(part, batch)


def _program(module: nn.Module, example_inputs: tuple[Tensor, ...], batch_dynamic: bool) -> ExportedProgram:
    """The module as an exported program. A dynamic batch is traced with two rows: torch.export bakes in a size of 1."""
    import torch

    if not batch_dynamic:
        return torch.export.export(module, example_inputs, strict=False)
    from torch.fx.experimental.symbolic_shapes import is_concrete_int

    carried = batched(example_inputs)
    shapes = tuple({0: torch.export.Dim.AUTO} if carries else None for carries in carried)
    program = torch.export.export(module, resized(example_inputs, 2), dynamic_shapes=shapes, strict=False)
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    rows = [node.meta["val"].shape[0] for node, carries in zip(inputs, carried, strict=False) if carries]
    if any(is_concrete_int(size) for size in rows):
        raise UsageError(
            "the model computes with one batch size alone, a file for any batch cannot be written",
            hint="look for a size in its forward that is a number where the batch, x.shape[0], is meant",
        )
    return program


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    """torch's exporters at work: without chatter and gradients; what they raise is a UsageError."""
    import torch

    try:
        with _quiet(), torch.no_grad():
            yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"the model cannot be exported to ONNX: {_first_line(error)}",
            hint="the operator named above has no ONNX form in this version of torch",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter (prints, warnings about absent torchvision) from the user's screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    text = str(cause).strip() or str(error).strip()
    return f"{type(cause).__name__}: {text.splitlines()[0]}" if text else type(cause).__name__
