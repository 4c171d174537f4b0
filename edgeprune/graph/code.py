"""The code of a smaller graph: that of the whole one, but for literals. To generate and compile it anew takes long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import PythonCode

__all__ = ["run_like"]

_OF_CODE = ("_code", "_lineno_map", "_prologue_start", "_in_spec", "_out_spec")  # what a GraphModule knows of its code


def run_like(smaller: GraphModule, graph: Graph, whole: GraphModule, changed: Sequence[tuple[Node, Node]]) -> None:
    """Give a module its graph, a copy of `whole`'s in which the second of each pair of nodes may differ from the first.

    The code is the same as fx would generate: the compiled one of `whole` where nothing differs, else its source with
    other literals, and fx's own where more than literals differ.
    """
    if not changed and _same_names(whole.graph, graph):
        smaller._graph, graph.owning_module = graph, smaller  # noqa: SLF001  the setter of `graph` does it, and compiles
        vars(smaller).update({name: vars(whole)[name] for name in _OF_CODE if name in vars(whole)})
        type(smaller).forward = type(whole).forward
        return
    source = _with_literals(whole.code, changed) if _same_names(whole.graph, graph) else None
    if source is None:
        smaller.graph = graph
        return
    known = type(whole).forward.__globals__
    code = PythonCode(source, known, whole._lineno_map, whole._prologue_start)  # noqa: SLF001
    graph.python_code = lambda *_, **__: code  # type: ignore[method-assign]
    try:
        smaller.graph = graph
    finally:
        del graph.python_code


def _same_names(whole: Graph, graph: Graph) -> bool:
    """Whether the nodes of both are called the same, one by one: so are then the variables of their code."""
    return [node.name for node in whole.nodes] == [node.name for node in graph.nodes]


def _with_literals(source: str, changed: Sequence[tuple[Node, Node]]) -> str | None:
    """The source with the literals of the second nodes; None where more than those changed, or is not found."""
    lines = source.split("\n")
    places: dict[str, int] = {}
    for number, line in enumerate(lines):
        places.setdefault(line[: line.find(" ", 4)], number)
    for old, new in changed:
        place = places.get(f"    {old.name}")
        if place is None or old.target is not new.target or _names(old) != _names(new):
            return None
        before, after = (f"({_text(node)})" for node in (old, new))
        if lines[place].count(before) != 1:
            return None
        lines[place] = lines[place].replace(before, after)
    return "\n".join(lines)


def _names(node: Node) -> list[str]:
    return [used.name for used in node.all_input_nodes]


def _text(node: Node) -> str:
    """The arguments of a call as fx writes them."""
    named = (f"{name} = {_written(value)}" for name, value in node.kwargs.items())
    return ", ".join([*map(_written, node.args), *named])


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        parts = ", ".join(map(_written, value))
        if isinstance(value, list):
            return f"[{parts}]"
        return f"({parts},)" if len(value) == 1 else f"({parts})"
    return repr(value)
