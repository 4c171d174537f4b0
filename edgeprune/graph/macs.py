"""Multiply-accumulates of single operators, and which operators multiply in ways that are not counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch.fx import Node

from edgeprune.graph.operators import argument_names, is_operator, operator_name, schema_of, shape_of

__all__ = ["is_counted", "macs_of", "macs_with"]

Shape = tuple[Any, ...]  # of integers, or of what adds and multiplies like them
Arguments = Mapping[str, Any]  # tensors are given by their shapes


def macs_of(node: Node) -> int:
    """Multiply-accumulates of one node at the batch that the graph was captured with.

    Of products that are summed: convolutions, matrix products, einsums, attention, recurrent layers. Element-wise
    arithmetic, normalisation, pooling and resizing count as none.
    """
    return int(macs_with(node, _noted_shape))


def macs_with(node: Node, shape: Callable[[Node], Shape]) -> Any:
    """The same with the sizes that `shape` gives for a node, which may be integers or polynomials."""
    formula = _FORMULAS.get(operator_name(node)) if is_operator(node) else None
    if formula is None:
        return 0

    def given(argument: Any) -> Any:
        if isinstance(argument, Node):
            return shape(argument)
        return [given(item) for item in argument] if isinstance(argument, list | tuple) else argument

    arguments = {**dict(zip(argument_names(node), node.args, strict=False)), **node.kwargs}
    return formula({name: given(argument) for name, argument in arguments.items()}, shape(node))


def _noted_shape(node: Node) -> Shape:
    value = node.meta.get("val")
    return shape_of(value) if isinstance(value, torch.Tensor) else ()


def is_counted(node: Node) -> bool:
    """Whether `macs_of` is right for the node; where it is not known that nothing is summed, it is not."""
    from edgeprune.graph.rules.table import RULES

    if node.op != "call_function" or operator_name(node) in _FORMULAS:
        return True
    if not is_operator(node):  # arithmetic of sizes; a region with a graph of its own is another thing
        return not isinstance(node.target, torch._ops.HigherOrderOperator)  # noqa: SLF001  no public name
    schema = schema_of(node)
    if schema.name.partition("::")[0] != "aten":
        return False
    name = operator_name(node).rstrip("_")
    if name in RULES or name.startswith(_FREE) or torch.Tag.pointwise in node.target.tags:  # type: ignore[union-attr]
        return True
    if any(returned.alias_info is not None for returned in schema.returns):  # views, and writes into a tensor
        return True
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return not any(isinstance(v, torch.Tensor) and (v.is_floating_point() or v.is_complex()) for v in values)


# Movement, pooling, resizing and reductions that no pruning rule knows.
_FREE = (
    *("upsample_", "_upsample_", "interpolate", "avg_pool", "max_pool", "adaptive_", "max_unpool", "normal"),
    *("index_", "scatter", "masked_", "take", "put", "embedding_bag", "one_hot", "repeat_interleave", "unique", "kron"),
    *("arange", "linspace", "eye", "tril", "triu", "diag", "tensor_split", "block_diag", "scalar_tensor", "bernoulli"),
    *("cum", "_cum", "median", "nanmedian", "kthvalue", "mode", "quantile", "count_nonzero", "diff", "trapezoid"),
    *("reflection_pad", "replication_pad", "meshgrid", "rot90", "bucketize", "searchsorted", "affine_grid_generator"),
    *("var_mean", "std_mean", "cosine_similarity", "pairwise_distance", "linalg_vector_norm", "local_response_norm"),
    *("native_", "_native_batch_norm", "_softmax", "_log_softmax", "segment_reduce", "rand", "fractional_max_pool"),
    *("dropout", "lift", "sym_", "_to_copy", "_unsafe_", "alpha_dropout", "feature_dropout", "rrelu", "nan"),
)  # fmt: skip


def _convolution(arguments: Arguments, output: Shape) -> Any:
    weight = arguments["weight"]
    return prod(arguments["input"] if arguments.get("transposed") else output) * prod(weight[1:])


def _transposed(arguments: Arguments, output: Shape) -> Any:
    return _convolution({**arguments, "transposed": True}, output)


def _linear(arguments: Arguments, output: Shape) -> Any:
    return prod(output) * arguments["weight"][-1]


def _product(left: str) -> Callable[[Arguments, Shape], Any]:
    """A matrix product sums over the last dimension of its left operand."""
    return lambda arguments, output: prod(output) * arguments[left][-1]


def _summed_product(arguments: Arguments, output: Shape) -> Any:
    """addbmm sums over the batch as well."""
    return prod(arguments["batch1"]) * output[-1]


def _tensordot(arguments: Arguments, output: Shape) -> Any:
    shape = arguments["self"]
    return prod(output) * prod(shape[int(dim)] for dim in arguments["dims_self"])


def _vecdot(arguments: Arguments, output: Shape) -> Any:
    return prod(output) * arguments["x"][int(arguments.get("dim", -1))]


def _bilinear(arguments: Arguments, output: Shape) -> Any:
    """x₁ᵀ W x₂ for each output, from the left."""
    _, first, second = arguments["weight"]
    return prod(output) * (first + 1) * second


def _attention(arguments: Arguments, output: Shape) -> Any:
    query, key = arguments["query"], arguments["key"]
    return prod(output[:-1]) * key[-2] * (query[-1] + output[-1])


def _recurrent(arguments: Arguments, _: Shape) -> Any:
    """Each weight matrix multiplies once in each step of each example; layers and directions have their own."""
    matrices = arguments["params"] if "params" in arguments else [arguments["w_ih"], arguments["w_hh"]]
    steps = prod(arguments["data" if "data" in arguments else "input"][:-1])
    return steps * sum(prod(shape) for shape in matrices if len(shape) == 2)


def _einsum(arguments: Arguments, _: Shape) -> Any:
    """The operands in turn, from the left; an index that only one of two has and nothing needs later is summed first.

    Each product then runs over all indices of both sides.
    """
    shapes = arguments["tensors"]
    inputs, arrow, output = str(arguments["equation"]).replace(" ", "").partition("->")
    names = [_letters(part, len(shape)) for part, shape in zip(inputs.split(","), shapes, strict=True)]
    sizes: dict[str, Any] = {}
    for letters, shape in zip(names, shapes, strict=True):
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = sizes.get(letter, 1) if size == 1 else size
    kept = set(output) if arrow else {x for x in sizes if sum(letters.count(x) for letters in names) == 1}
    kept |= {letter for letter in sizes if letter.startswith("...")}
    total: Any = 0
    left = set(names[0])
    for i, letters in enumerate(names[1:], 1):
        right, later = set(letters), kept.union(*names[i + 1 :])
        left, right = left & (right | later), right & (left | later)
        total += prod(sizes[letter] for letter in left | right)
        left = (left | right) & later
    return total


def _letters(part: str, ndim: int) -> list[str]:
    """One name per dimension; those of an ellipsis are counted from its end."""
    before, dots, after = part.partition("...")
    if not dots:
        return list(part)
    hidden = ndim - len(before) - len(after)
    return [*before, *(f"...{hidden - i}" for i in range(hidden)), *after]


_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")

# Operator -> multiply-accumulates, of its arguments by name and the shape of its output
_FORMULAS: dict[str, Callable[[Arguments, Shape], Any]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "linalg_matmul"), _product("self")),
    "addmm": _product("mat1"),
    "addmv": _product("mat"),
    "baddbmm": _product("batch1"),
    "addbmm": _summed_product,
    "tensordot": _tensordot,
    "linalg_vecdot": _vecdot,
    "bilinear": _bilinear,
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    **dict.fromkeys((*_RECURRENT, *(f"{name}_cell" for name in _RECURRENT)), _recurrent),
}
