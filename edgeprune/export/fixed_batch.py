"""A module as a program of fixed shapes, for formats whose runtimes want to know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.records.artifact import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = ["fixed_program", "input_specs", "output_specs"]


def fixed_program(module: nn.Module, examples: tuple[Tensor, ...], what: str) -> ExportedProgram:
    """The module in eval mode, at the batch of the examples; the module is left as it was.

    Raises UsageError, which says that the model cannot be exported to `what`.
    """
    import torch

    training = module.training
    try:
        module.eval()
        with torch.no_grad():
            return torch.export.export(module, examples, strict=False)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"the model cannot be exported to {what}: {lines[0]}") from error
    finally:
        module.train(training)


def input_specs(program: ExportedProgram, names: Sequence[str] = ()) -> tuple[TensorSpec, ...]:
    """The inputs, called as given, else as in the graph."""
    own = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.name in own]
    return _specs(nodes, names or [node.name for node in nodes])


def output_specs(program: ExportedProgram, names: Sequence[str] = ()) -> tuple[TensorSpec, ...]:
    """The outputs, called as given, else "output", or "output_0", "output_1", …"""
    output = next(node for node in program.graph.nodes if node.op == "output")
    own = set(program.graph_signature.user_outputs)
    nodes = [node for node in output.args[0] if getattr(node, "name", None) in own]
    return _specs(nodes, names or (["output"] if len(nodes) == 1 else [f"output_{n}" for n in range(len(nodes))]))


def _specs(nodes: Sequence[Any], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    values = [node.meta["val"] for node in nodes]
    return tuple(
        TensorSpec(name, str(value.dtype).removeprefix("torch."), tuple(int(size) for size in value.shape))
        for name, value in zip(names, values, strict=True)
    )
