"""The batch of a captured graph: which inputs carry it, and what the graph is like at another one."""

from __future__ import annotations

import numpy as np
import torch
from torch.fx import Graph, GraphModule
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from edgeprune.errors import VerificationError
from edgeprune.graph.coupling import Coupling, couple
from edgeprune.graph.edit import Keep
from edgeprune.graph.operators import at_batch, concrete, sizes_of

__all__ = ["batch_of", "carriers", "coupled_at", "keep_at", "repeated"]


def carriers(graph: Graph) -> tuple[bool, ...]:
    """Per input, whether its dimension 0 is the batch and may have any size."""
    sizes = [sizes_of(node.meta["val"])[:1] for node in graph.nodes if node.op == "placeholder"]
    return tuple(bool(size) and not is_concrete_int(size[0]) for size in sizes)


def batch_of(graph: Graph) -> int | None:
    """The batch that the graph was captured with; None where it is fixed."""
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    sizes = [sizes_of(node.meta["val"])[0] for node, carries in zip(nodes, carriers(graph), strict=True) if carries]
    return int(concrete(sizes[0])) if sizes else None


def repeated(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """The tensor with so many rows: its own, in turn."""
    return tensor[[row % len(tensor) for row in range(rows)]] if len(tensor) != rows else tensor


def coupled_at(module: GraphModule, coupling: Coupling, rows: int) -> Coupling:
    """The coupling at another batch; its atoms have numbers of their own."""
    with at_batch(rows):
        return couple(module, coupling.granularity)


def keep_at(coupling: Coupling, keep: Keep, other: Coupling) -> Keep:
    """What is kept, by the atoms of the coupling at another batch. Raises VerificationError where that differs."""
    removed = np.zeros(int(other.component.max()) + 1, np.bool_)
    pairs = [
        (keep[axis.atoms], same.atoms, name)
        for name, labels in coupling.parameters.items()
        for axis, same in zip(labels.axes, other.parameters[name].axes, strict=True)
    ]
    for kept, atoms, _ in pairs:
        removed[other.component[atoms[~kept]]] = True
    result: Keep = ~removed[other.component]
    for kept, atoms, name in pairs:
        if not np.array_equal(result[atoms], kept):
            raise VerificationError(
                f"what can be removed from {name!r} depends on the batch",
                hint="leave its group out, or capture the model with another batch",
            )
    return result
