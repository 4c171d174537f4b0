"""Capture of an ONNX file: read, interpret, export like any model, prove against ONNX Runtime."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from edgeprune.errors import CaptureError
from edgeprune.graph.capture import export_program, from_program
from edgeprune.graph.captured import Captured
from edgeprune.graph.coupling import Granularity
from edgeprune.graph.onnx_input.compare import disagreement, first_difference, run_file
from edgeprune.graph.onnx_input.interpreter import OnnxModule
from edgeprune.graph.onnx_input.reader import OnnxGraph, OnnxTensor, read

__all__ = ["capture_onnx"]

_LOG = logging.getLogger(__name__)
_BATCH = 2
_MAX_ELEMENTS = 2**28
_MANY = 3  # of a batch that the file fixes: so many of it prove that any other does as well


def capture_onnx(path: Path, example_inputs: tuple[torch.Tensor, ...] | None, granularity: Granularity) -> Captured:
    """Capture an ONNX file and compare it with ONNX Runtime on random inputs; raises CaptureError.

    Without example inputs they are made from the shapes in the file. A batch that the file fixes becomes dynamic
    where the result is proven equal, example by example; otherwise `batch_dynamic` is False.
    """
    graph = read(path)
    captured = _captured(graph, example_inputs, granularity)
    captured.input_names = tuple(value.name for value in graph.inputs)
    captured.output_names = graph.outputs
    return captured


def _captured(graph: OnnxGraph, example_inputs: tuple[torch.Tensor, ...] | None, granularity: Granularity) -> Captured:
    path = graph.path
    inputs = _examples(graph) if example_inputs is None else _fitting(graph, example_inputs)
    module = OnnxModule(graph).eval()
    fixed = graph.inputs[0].shape[0] if graph.inputs[0].shape else None
    rows = fixed if isinstance(fixed, int) and fixed > 0 else None
    if rows is not None:
        freed = _with_free_batch(graph, module, inputs, rows, granularity)
        if freed is not None:
            return freed
        module.free_batch = False
    _run_once(graph, module, inputs)
    program, dynamic = export_program(module, inputs)
    captured = from_program(program, inputs, batch_dynamic=dynamic, granularity=granularity)
    error = disagreement(captured.module, run_file(graph, inputs, None), inputs)
    if error > 1:
        raise CaptureError(
            f"{path}: the captured graph differs from ONNX Runtime, {error * 1e-4:.1g} of the largest output"
            f"{first_difference(graph, module, inputs)}",
            hint="this operator is not understood as ONNX Runtime does it: please report it with the file",
        )
    return captured


def _with_free_batch(
    graph: OnnxGraph, module: OnnxModule, inputs: tuple[torch.Tensor, ...], rows: int, granularity: Granularity
) -> Captured | None:
    """The graph with a dynamic batch, where every operator allows it and the results are proven equal."""
    module.free_batch = True
    many = tuple(
        torch.cat([value] + [_random(value, seed) for seed in range(1, _MANY)])
        if value.dim() and value.shape[0] == rows
        else value
        for value in inputs
    )
    try:
        with torch.no_grad():
            module(*many)
        program, dynamic = export_program(module, many)
    except (CaptureError, RuntimeError, ValueError, IndexError, TypeError) as error:
        _LOG.info("the batch stays fixed: %s", error)
        return None
    if not dynamic:
        return None
    captured = from_program(program, many, batch_dynamic=True, granularity=granularity)
    difference = disagreement(captured.module, run_file(graph, many, rows), many)
    if difference > 1:
        _LOG.info("the batch stays fixed: with another the results differ by %g of the tolerance", difference)
        return None
    return captured


def _run_once(graph: OnnxGraph, module: OnnxModule, inputs: tuple[torch.Tensor, ...]) -> None:
    try:
        with torch.no_grad():
            module(*inputs)
    except CaptureError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{value.name}: {tuple(x.shape)}" for value, x in zip(graph.inputs, inputs, strict=True))
        raise CaptureError(
            f"{graph.path}: cannot be computed on inputs {shapes}: {error}",
            hint="give example_inputs of shapes that the model takes",
        ) from error


def _examples(graph: OnnxGraph) -> tuple[torch.Tensor, ...]:
    bounds = {node.inputs[1]: node.inputs[0] for node in graph.nodes if node.kind == "Gather"}
    examples = []
    for position, value in enumerate(graph.inputs):
        sizes = [_BATCH if axis == 0 and not isinstance(s, int) else s for axis, s in enumerate(value.shape)]
        unknown = [f"{axis} ({size or 'unnamed'})" for axis, size in enumerate(sizes) if not isinstance(size, int)]
        if unknown:
            raise CaptureError(
                f"{graph.path}: input {value.name!r} has no fixed size in dimension {', '.join(unknown)}",
                hint="give example_inputs=, a tuple with one tensor per input: "
                + ", ".join(f"{v.name} {list(v.shape)}" for v in graph.inputs),
            )
        shape = [int(size) for size in sizes if size is not None]
        if int(np.prod(shape)) > _MAX_ELEMENTS:
            raise CaptureError(f"{graph.path}: input {value.name!r} of shape {shape} is too large to try")
        table = graph.constants.get(bounds.get(value.name, ""))
        bound = 2 if table is None else table.shape[0]
        like = torch.empty(shape, dtype=_torch_type(graph, value))
        examples.append(_random(like, 100 + position, bound))
    if not examples:
        raise CaptureError(f"{graph.path}: the graph has no inputs", hint="give a network")
    return tuple(examples)


def _random(like: torch.Tensor, seed: int, bound: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if like.is_floating_point():
        return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like.dtype)
    return torch.randint(0, bound, like.shape, generator=generator).to(like.dtype)


def _torch_type(graph: OnnxGraph, value: OnnxTensor) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, value.dtype)).dtype
    except TypeError as error:
        raise CaptureError(f"{graph.path}: input {value.name!r} has type {value.dtype}") from error


def _fitting(graph: OnnxGraph, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Example inputs that the file takes; raises CaptureError."""
    if len(inputs) != len(graph.inputs):
        names = ", ".join(value.name for value in graph.inputs)
        raise CaptureError(f"{len(inputs)} example inputs for the inputs {names}", hint="give one tensor per input")
    for value, tensor in zip(graph.inputs, inputs, strict=True):
        same = len(value.shape) == tensor.dim() and all(
            not isinstance(size, int) or size == given for size, given in zip(value.shape, tensor.shape, strict=True)
        )
        if not same or tensor.dtype != _torch_type(graph, value):
            raise CaptureError(
                f"example input {value.name!r} has shape {list(tensor.shape)} and type {tensor.dtype}, "
                f"the file says {list(value.shape)} and {value.dtype}",
                hint="give a tensor as the file says",
            )
    return inputs
