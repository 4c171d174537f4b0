"""A program as ncnn can express it: its tensors have at most four dimensions, one of which is no batch.

Some things that networks often do have another form in which ncnn has them: every other row and column of a picture
(ncnn's Crop has no steps) is a max-pooling of one pixel; queries, keys and values cut out of one tensor of five
dimensions are cut out of its last one before it gets five; a mean over one dimension is one over two.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

__all__ = ["for_ncnn"]

Node = Any  # torch.fx.Node, whose arguments have too many types
Graph = Any

_MOST_DIMENSIONS = 4  # with the batch
_TO_THE_END = 2**31 - 1


def for_ncnn(program: ExportedProgram, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """A program that computes the same; `inputs` are any of its shapes."""
    import torch

    graph_module: GraphModule = program.module(check_guards=False)
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.slice.Tensor:
            _stepless(graph, node)
        elif node.target is torch.ops.aten.select.int:
            _without_fifth(graph, node, node.args[0], node.args[1], node.args[2])
        elif node.target is torch.ops.aten.unbind.int:
            dimension = node.args[1] if len(node.args) > 1 else 0
            for part in list(node.users):
                _without_fifth(graph, part, node.args[0], dimension, part.args[1])
        elif node.target in (torch.ops.aten.mean.dim, torch.ops.aten.sum.dim_IntList):
            _over_two(graph, node)
    graph.eliminate_dead_code()
    graph_module.recompile()
    return torch.export.export(graph_module, inputs, strict=False)


def _stepless(graph: Graph, node: Node) -> None:
    """A slice with steps along a spatial dimension, as a pooling; any other stays."""
    import torch

    values: list[Any] = [*node.args, *(0, None, None, 1)[len(node.args) - 1 :]]
    source, dimension, start, end, step = values
    rank = source.meta["val"].ndim
    dimension %= rank
    if step == 1 or rank not in {3, 4} or dimension < 2:
        return
    with graph.inserting_before(node):
        if start not in {0, None} or (end is not None and end < _TO_THE_END):
            source = graph.call_function(torch.ops.aten.slice.Tensor, (source, dimension, start, end))
        strides = [step if axis == dimension else 1 for axis in range(2, rank)]
        pool = torch.ops.aten.max_pool2d.default if rank == 4 else torch.ops.aten.max_pool1d.default
        pooled = graph.call_function(pool, (source, [1] * len(strides), strides))
    _replace(graph, node, pooled)


def _without_fifth(graph: Graph, node: Node, given: Node, dimension: int, index: int) -> None:
    """One element, along a dimension, of a tensor that was split into five dimensions and turned, cut out before."""
    import torch

    aten = torch.ops.aten
    turned: Sequence[int] = range(_rank(given))
    if given.target is aten.permute.default:
        turned = [axis % _rank(given) for axis in given.args[1]]
        given = given.args[0]
    if given.target not in {aten.view.default, aten.reshape.default} or _rank(given) <= _MOST_DIMENSIONS:
        return
    shape, source = list(given.meta["val"].shape), given.args[0]
    whole = list(source.meta["val"].shape)
    axis = turned[dimension % len(shape)]
    size = prod(shape[axis + 1 :])
    if whole != [*shape[:axis], shape[axis] * size]:
        return  # something else than the first of those that the last dimension was split into
    index %= shape[axis]
    order = [other - (other > axis) for other in turned if other != axis]
    with graph.inserting_before(node):
        part = graph.call_function(aten.slice.Tensor, (source, axis, index * size, (index + 1) * size))
        part = graph.call_function(aten.reshape.default, (part, [*shape[:axis], *shape[axis + 1 :]]))
        if order != sorted(order):
            part = graph.call_function(aten.permute.default, (part, order))
    _replace(graph, node, part)


def _over_two(graph: Graph, node: Node) -> None:
    """A reduction over one dimension, as one over that and a new one of size one: pnnx forgets which a lone one was."""
    import torch

    source, axes, *_ = node.args
    shape = list(source.meta["val"].shape)
    if len(shape) >= _MOST_DIMENSIONS or axes is None or len(axes) != 1 or axes[0] % len(shape) == 0:
        return
    axis = axes[0] % len(shape)
    reshape = torch.ops.aten.reshape.default
    with graph.inserting_before(node):
        wider = graph.call_function(reshape, (source, [*shape[: axis + 1], 1, *shape[axis + 1 :]]))
        found = graph.call_function(node.target, (wider, [axis, axis + 1]), node.kwargs)
        if node.meta["val"].ndim == len(shape):  # it was to stay, of size one
            found = graph.call_function(reshape, (found, list(node.meta["val"].shape)))
    _replace(graph, node, found)


def _replace(graph: Graph, node: Node, new: Node) -> None:
    new.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _rank(node: Node) -> int:
    return int(node.meta["val"].ndim)
