"""Capture: a model becomes a flat graph of ATen operators with its parameters under their dotted names."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from edgeprune.errors import CaptureError
from edgeprune.graph.captured import Captured
from edgeprune.graph.constants import inline_regions
from edgeprune.graph.coupling import Granularity, Grouped, Split
from edgeprune.graph.operators import operator_name
from edgeprune.graph.training import add_mode_switch

__all__ = ["capture", "evaluation", "export_program", "from_program"]

_LOG = logging.getLogger(__name__)


def capture(
    model: torch.nn.Module | str | Path,
    example_inputs: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
    *,
    granularity: Split = "outer",
    grouped: Grouped = "positions",
) -> Captured:
    """Capture a model by running it once on example inputs (first dimension: the batch, of any size).

    The model is captured as it behaves in evaluation mode and is left as it was; parameters are shared with
    it, not copied. The batch is dynamic unless the model fixes it. `granularity` decides what goes where an
    axis is split in two: whole heads ("outer") or the head size ("inner"); `grouped` what goes in grouped
    convolutions and normalisations: the same positions of every group, or whole groups. Raises CaptureError.

    `model` may be the path of an ONNX file; it is compared with ONNX Runtime, and makes its own example inputs
    where all sizes but the batch are fixed.
    """
    if isinstance(model, str | Path):
        from edgeprune.graph.onnx_input.capture import capture_onnx

        given = None if example_inputs is None else _checked(example_inputs)
        return capture_onnx(Path(model), given, Granularity(granularity, grouped))
    inputs = _checked(example_inputs)
    with evaluation(model), warnings.catch_warnings():
        # A recurrent layer lists its weights a second time; the program has them under their names.
        warnings.filterwarnings("ignore", r"(?s).*_flat_weights.* assigned during export")
        program, dynamic = export_program(model, inputs)
    return from_program(program, inputs, batch_dynamic=dynamic, granularity=Granularity(granularity, grouped))


def from_program(
    program: ExportedProgram,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    batch_dynamic: bool,
    granularity: Granularity = Granularity(),  # noqa: B008  frozen
) -> Captured:
    """The captured graph of an exported program; nothing is copied. Raises CaptureError."""
    try:
        exported = program.module(check_guards=False)
    except SyntaxError as error:
        raise CaptureError(
            f"the model's names make no code: {(error.text or str(error)).strip()}",
            hint="rename submodules and parameters that are called like a keyword of Python (class, in, is ...)",
        ) from error
    graph = exported.graph
    inline_regions(graph, exported)
    for node in list(graph.nodes):
        name = operator_name(node)
        if name.startswith("_assert") and not node.users:
            graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    add_mode_switch(graph)
    graph.lint()
    module = GraphModule(exported, graph, "Captured")
    module.eval()
    return Captured(module, example_inputs, batch_dynamic=batch_dynamic, granularity=granularity)


def _checked(example_inputs: Any) -> tuple[torch.Tensor, ...]:
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs or ())
    for position, value in enumerate(inputs):
        if not isinstance(value, torch.Tensor):
            raise CaptureError(
                f"example input {position} is a {type(value).__name__}, not a tensor",
                hint="give one tensor per positional argument of the model's forward",
            )
    if not inputs:
        raise CaptureError("no example inputs were given", hint="give one tensor per argument of the model's forward")
    return inputs


@contextmanager
def evaluation(model: torch.nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards every part of it is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def export_program(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[ExportedProgram, bool]:
    """Try a dynamic batch first; a model that fixes its batch is captured as it is."""
    batch = inputs[0].shape[0] if inputs[0].dim() else 0
    batched = [bool(x.dim()) and x.shape[0] == batch for x in inputs]
    if batch:
        # A batch of one would be taken for a constant.
        two = tuple(
            torch.cat([x, x]) if is_batched and batch == 1 else x for x, is_batched in zip(inputs, batched, strict=True)
        )
        shapes = tuple({0: Dim.AUTO} if is_batched else None for is_batched in batched)
        try:
            program = torch.export.export(model, two, dynamic_shapes=_for_signature(model, shapes), strict=False)
        except Exception as error:
            _LOG.info("capture with a dynamic batch failed: %s", error)
        else:
            symbols = [
                node.meta["val"].shape[0]
                for node in program.graph.nodes
                if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
            ]
            # A batch that the model fixes is still a SymInt, but one of a known value.
            if not any(is_concrete_int(size) for size, is_batched in zip(symbols, batched, strict=False) if is_batched):
                return program, True
    try:
        return torch.export.export(model, inputs, strict=False), False
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CaptureError(
            f"the model cannot be captured: {first}",
            hint="torch.export must be able to trace it: avoid control flow that depends on tensor values; "
            "run it once on the example inputs to see that they fit",
        ) from error


def _for_signature(model: torch.nn.Module, shapes: tuple[Any, ...]) -> Any:
    """A forward with *args takes its shapes as one nested tuple."""
    import inspect

    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    return (shapes,) if kinds and kinds[0] is inspect.Parameter.VAR_POSITIONAL else shapes
