"""Constants of a captured graph: tensors that depend on no input and no parameter, such as index tables."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Graph, Node

from edgeprune.graph.operators import SYMBOLIC, concrete, is_operator, operator_name, schema_of

__all__ = ["Attributes", "Constants", "attribute", "inline_regions"]

_RANDOM = ("rand", "bernoulli", "dropout", "normal", "multinomial", "uniform")


class Attributes:
    """What the dotted names of a module stand for; a submodule is looked up once for all that it has."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._homes: dict[str, Any] = {"": module}

    def __getitem__(self, name: str) -> Any:
        path, _, last = name.rpartition(".")
        if path not in self._homes:
            self._homes[path] = self[path]
        return getattr(self._homes[path], last)


class Constants:
    """Computes the constant nodes of a module, each at most once, when it is asked for them."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._known: dict[Node, torch.Tensor | None] = {}

    def value(self, node: object) -> torch.Tensor | None:
        """The tensor that the node always has; None where an input, a parameter or chance takes part."""
        if not isinstance(node, Node):
            return None
        if node not in self._known:
            self._known[node] = self._compute(node)
        return self._known[node]

    def _compute(self, node: Node) -> torch.Tensor | None:
        if node.op == "get_attr":
            found = self._attributes[str(node.target)]
            return found if isinstance(found, torch.Tensor) and not isinstance(found, torch.nn.Parameter) else None
        if node.op != "call_function" or not is_operator(node) or any(word in operator_name(node) for word in _RANDOM):
            return None
        if not isinstance(node.meta.get("val"), torch.Tensor):
            return None
        if schema_of(node).is_mutable and operator_name(node) != "detach_":  # which changes no value
            return None
        constant = True

        def known(argument: Node) -> Any:
            nonlocal constant
            value = argument.meta.get("val")
            if isinstance(value, int | float | bool):
                return value
            if isinstance(value, SYMBOLIC):  # the batch
                constant = False
                return concrete(value)
            found = self.value(argument)
            constant = constant and found is not None
            return found

        args = torch.fx.map_arg(node.args, known)
        kwargs = torch.fx.map_arg(node.kwargs, known)
        return node.target(*args, **kwargs) if constant else None  # type: ignore[operator]


def attribute(module: torch.nn.Module, name: str) -> Any:
    """What a dotted name stands for."""
    return Attributes(module)[name]


def inline_regions(graph: Graph, module: torch.nn.Module) -> None:
    """Put the nodes of regions that change nothing (autocast switched off, gradients switched off) in their place.

    What leaves a region without gradients is detached, so that it goes on to have none.
    """
    for node in list(graph.nodes):
        region = _plain_region(node)
        if region is None:
            continue
        inner, arguments, detached = region
        body = attribute(module, str(inner.target))
        placed: dict[Node, Any] = {}
        inputs = iter(arguments)
        for part in body.graph.nodes:
            with graph.inserting_before(node):
                if part.op == "placeholder":
                    placed[part] = next(inputs)
                elif part.op == "output":
                    _hand_out(graph, node, part, placed, detached)
                else:
                    placed[part] = graph.node_copy(part, placed.__getitem__)
        if not node.users:
            graph.erase_node(node)
        if not inner.users:
            graph.erase_node(inner)


def _plain_region(node: Node) -> tuple[Node, tuple[Any, ...], bool] | None:
    name = str(getattr(node.target, "__name__", node.target))
    if node.op != "call_function":
        return None
    if name == "wrap_with_autocast":  # (device, dtype, enabled, cache, region, *inputs)
        enabled, inner, arguments, detached = node.args[2], node.args[4], node.args[5:], False
    elif name == "wrap_with_set_grad_enabled":  # (enabled, region, *inputs)
        enabled, inner, arguments, detached = False, node.args[1], node.args[2:], not node.args[0]
    else:
        return None
    return (inner, tuple(arguments), detached) if isinstance(inner, Node) and not enabled else None


def _hand_out(graph: Graph, region: Node, output: Node, placed: dict[Node, Any], detached: bool) -> None:
    def handed(result: Any) -> Any:
        made = placed[result] if isinstance(result, Node) else result
        if not detached or not isinstance(made, Node) or not isinstance(made.meta.get("val"), torch.Tensor):
            return made
        cut = graph.call_function(torch.ops.aten.detach.default, (made,))
        cut.meta["val"] = made.meta["val"]
        return cut

    results = output.args[0]
    if not isinstance(results, list | tuple):
        region.replace_all_uses_with(handed(results))
        return
    values = [handed(result) for result in results]
    for user in list(region.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(values[int(str(user.args[1]))])
            graph.erase_node(user)
