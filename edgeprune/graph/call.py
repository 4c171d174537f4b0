"""One operator call, its arguments bound to the names of the operator's schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from edgeprune.graph.constants import Constants
from edgeprune.graph.labels import Labels
from edgeprune.graph.operators import argument_names, formal_arguments, is_operator, operator_name, shape_of

__all__ = ["Call", "Value", "bind"]

Value = Any  # Labels, a list of Labels, or a plain constant


@dataclass(slots=True)
class Call:
    """One operator call with its arguments bound to the names of the operator's schema.

    Tensors are given as Labels, lists of tensors as lists of Labels, all else as concrete Python values.
    """

    node: Node
    name: str  # "conv2d"
    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]  # of the outputs
    constants: Constants

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    def node_of(self, name: str) -> Any:
        """The argument as it stands in the graph: a node, a list of nodes, or a literal."""
        names = argument_names(self.node)
        position = names.index(name)
        return self.node.args[position] if position < len(self.node.args) else self.node.kwargs.get(name)

    def constant(self, node: object) -> torch.Tensor | None:
        """The value of an argument that is always the same tensor."""
        return self.constants.value(node)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    def tensors(self) -> list[tuple[str, Labels]]:
        """All tensor arguments with their names, members of lists one by one."""
        found: list[tuple[str, Labels]] = []
        for name, value in self.arguments.items():
            if isinstance(value, Labels):
                found.append((name, value))
            elif isinstance(value, (list, tuple)):
                found.extend((name, item) for item in value if isinstance(item, Labels))
        return found


def bind(node: Node, labels: Mapping[Node, Value], constants: Constants) -> Call:
    """The call that a node makes, given the labels of the nodes before it."""
    value = node.meta["val"]
    if isinstance(value, torch.Tensor):
        shapes: tuple[tuple[int, ...], ...] = (shape_of(value),)
    else:
        values = value if isinstance(value, list | tuple) else [value]
        shapes = tuple(shape_of(item) if isinstance(item, torch.Tensor) else () for item in values)
    return Call(node, operator_name(node), _arguments(node, labels), shapes, constants)


def _arguments(node: Node, labels: Mapping[Node, Value]) -> dict[str, Any]:
    def value(argument: object) -> Any:
        if isinstance(argument, Node):
            return labels[argument]
        if isinstance(argument, (list, tuple)):  # a union takes longer, and this runs for every argument
            return [value(item) for item in argument]
        return argument

    if not is_operator(node):
        return {f"arg{i}": value(argument) for i, argument in enumerate(node.args)}
    bound: dict[str, Any] = {}
    args, kwargs = node.args, node.kwargs
    for i, (name, default) in enumerate(formal_arguments(node.target)):
        if i < len(args):
            bound[name] = value(args[i])
        elif name in kwargs:
            bound[name] = value(kwargs[name])
        elif default:
            bound[name] = default[0]
    return bound
