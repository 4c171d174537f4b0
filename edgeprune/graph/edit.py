"""One operator of a smaller graph, whose literals are to be rewritten; sizes that the batch takes part in."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from edgeprune.graph.call import Call
from edgeprune.graph.labels import Labels, kept_per_dim
from edgeprune.graph.operators import argument_names, at_batch, concrete, sizes_of

__all__ = ["NO_SHARE", "Edit", "Keep", "at_two_batches", "smaller_meta"]

Keep = NDArray[np.bool_]  # per atom
T = TypeVar("T")
NO_SHARE = "the batch is part of a size in a way that cannot be rewritten"


@dataclass(frozen=True, slots=True)
class Edit:
    """One operator of the smaller graph that still has the literals of the call that it is copied from."""

    node: Node
    call: Call
    result: Any  # labels of the call's result
    keep: Keep
    constants: dict[str, torch.Tensor]  # tables that the smaller graph needs; filled by the rewriting

    def kept(self, labels: Labels, dim: int) -> NDArray[np.bool_] | None:
        """Which indices of a dimension are left; None where all of them are, for good."""
        axis = labels.axis(dim)
        if axis is None:
            return None
        return kept_per_dim(axis, self.keep)[axis.dims.index(dim % len(labels.shape))]

    def written(self, name: str) -> Any:
        """An argument as the new node has it."""
        names = argument_names(self.node)
        position = names.index(name)
        return self.node.args[position] if position < len(self.node.args) else self.node.kwargs.get(name)

    def set(self, name: str, value: Any) -> None:
        """Replace an argument by the name that the operator's schema gives it."""
        position = argument_names(self.node).index(name)
        if position < len(self.node.args):
            self.node.update_arg(position, value)
        else:
            self.node.update_kwarg(name, value)

    def follows_batch(self, name: str, dim: int) -> bool:
        """Whether the batch takes part in the size of a dimension of an argument: no literal fits it."""
        return not isinstance(sizes_of(self.call.node_of(name).meta["val"])[dim], int)

    def value(self, name: str, default: int) -> int:
        """An integer argument as it is at the batch that is looked at."""
        written = self.call.node_of(name)
        return int(
            concrete(written.meta["val"] if isinstance(written, Node) else default if written is None else written)
        )

    def scaled(self, size: Any, before: int, after: int) -> Any:
        """A size as written that was `before` and becomes `after`: a literal, or a share of what the batch makes it."""
        if isinstance(size, int):
            return after
        first, second = at_two_batches(lambda: int(concrete(size.meta["val"]))) if isinstance(size, Node) else (1, 1)
        if second != 2 * first:
            raise ValueError(NO_SHARE)
        return self._share(size, after, before)

    def share(self, argument: str, dim: int, part: int, whole: int) -> Node:
        """`part / whole` of the size that a dimension of an argument has in the smaller graph."""
        with self.node.graph.inserting_before(self.node):
            size = self._call(torch.ops.aten.sym_size.int, self.written(argument), dim)
        old = sizes_of(self.call.node_of(argument).meta["val"])[dim]
        size.meta["val"] = _smaller_size(old, int(concrete(old)), whole)
        return size if part == whole else self._share(size, part, whole)

    def _share(self, size: Node, part: int, whole: int) -> Node:
        divisor = math.gcd(part, whole)
        part, whole = part // divisor, whole // divisor
        with self.node.graph.inserting_before(self.node):
            scaled = self._call(operator.mul, size, part) if part != 1 else size
            return self._call(operator.floordiv, scaled, whole) if whole != 1 else scaled

    def _call(self, target: Callable[..., Any], source: Node, value: int) -> Node:
        node = self.node.graph.call_function(target, (source, value))
        if not isinstance(source.meta["val"], torch.Tensor):
            node.meta["val"] = target(source.meta["val"], value)
        return node

    def constant(self, values: NDArray[np.int64]) -> Node:
        """A node for a new constant table."""
        name = f"_table_{self.node.name}_{len(self.constants)}"
        self.constants[name] = torch.from_numpy(np.ascontiguousarray(values))
        with self.node.graph.inserting_before(self.node):
            node = self.node.graph.create_node("get_attr", name)
        node.meta["val"] = torch.empty(values.shape, dtype=torch.int64, device="meta")
        return node


def at_two_batches(value: Callable[[], T]) -> tuple[T, T]:
    """What is computed from sizes, at a batch and at one twice as large; many numbers divide both."""
    with at_batch(5040):
        first = value()
    with at_batch(10080):
        return first, value()


def smaller_meta(value: torch.Tensor, before: tuple[int, ...], after: tuple[int, ...]) -> torch.Tensor:
    """What a node of the smaller graph carries: its dtype and sizes, those with the batch in them still symbolic."""
    if after == before:
        return value
    meta = torch.empty(after, dtype=value.dtype, device="meta")
    sizes = sizes_of(value)
    if any(type(size) is not int for size in sizes):  # a tensor with symbolic sizes would take milliseconds to make
        meta.sizes = tuple(map(_smaller_size, sizes, before, after))  # type: ignore[attr-defined]
    return meta


def _smaller_size(size: Any, before: int, after: int) -> Any:
    if before == after:
        return size
    return after if isinstance(size, int) else size * after // before
