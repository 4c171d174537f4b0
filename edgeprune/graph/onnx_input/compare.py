"""The captured graph against ONNX Runtime on the original file: the proof that the file was read right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.errors import CaptureError
from edgeprune.graph.onnx_input.interpreter import OnnxModule
from edgeprune.graph.onnx_input.reader import OnnxGraph

__all__ = ["disagreement", "first_difference", "run_file"]

_TOLERANCE = 1e-4


def _session(model: Path | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CaptureError(
            f"ONNX Runtime refuses the file: {error}", hint="the capture is checked against it: mend the file"
        ) from error


def run_file(graph: OnnxGraph, inputs: Sequence[torch.Tensor], rows: int | None) -> list[np.ndarray[Any, Any]]:
    """The outputs of ONNX Runtime; where the file fixes its batch to `rows`, part by part."""
    session = _session(graph.path)
    count = 1 if rows is None else inputs[0].shape[0] // rows
    batch = inputs[0].shape[0] if inputs[0].dim() else None
    results = []
    for part in range(count):
        feeds = {}
        for value, tensor in zip(graph.inputs, inputs, strict=True):
            carries = rows is not None and tensor.dim() and tensor.shape[0] == batch
            chosen = tensor[part * (rows or 1) : (part + 1) * (rows or 1)] if carries else tensor
            feeds[value.name] = chosen.numpy()
        results.append(session.run(list(graph.outputs), feeds))
    if count == 1:
        return [np.asarray(output) for output in results[0]]
    return [np.concatenate([np.atleast_1d(result[i]) for result in results]) for i in range(len(graph.outputs))]


def disagreement(
    module: Callable[..., Any], expected: Sequence[np.ndarray[Any, Any]], inputs: Sequence[torch.Tensor]
) -> float:
    """The largest relative difference of the outputs, infinite for another shape; at most 1 is an agreement."""
    with torch.no_grad():
        outputs = module(*inputs)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    return max(_difference(ours.numpy(), theirs) for ours, theirs in zip(outputs, expected, strict=True))


def _difference(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    """In units of the tolerance."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return float("inf")
    if not ours.size:
        return 0.0
    if ours.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    error = np.abs(np.where(same, 0.0, a - b)).max()
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    tolerance = max(_TOLERANCE, 8 * float(np.finfo(ours.dtype).eps))
    return float(error / (tolerance * scale)) if np.isfinite(error) and scale > 0 else float("inf")


def first_difference(graph: OnnxGraph, module: OnnxModule, inputs: Sequence[torch.Tensor]) -> str:
    """The first node whose result differs from ONNX Runtime's, for a message; empty where none does."""
    import onnx

    with torch.no_grad():
        ours = module.intermediates(*inputs)
    model = onnx.load(graph.path)
    outputs = {value.name for value in model.graph.output}
    names = [name for name in ours if any(name in node.output for node in model.graph.node)]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    feeds = {value.name: tensor.numpy() for value, tensor in zip(graph.inputs, inputs, strict=True)}
    results = dict(zip(names, _session(model.SerializeToString()).run(names, feeds), strict=True))
    for node in graph.nodes:
        for name in node.outputs:
            if name in results and _difference(ours[name].numpy(), np.asarray(results[name])) > 1:
                return f"; the first node that differs is {node.name!r} ({node.kind})"
    return ""
