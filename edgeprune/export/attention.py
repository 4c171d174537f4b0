"""Attention in four dimensions, the only form that torch's ONNX exporter can translate."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

__all__ = ["in_four_dimensions"]


def in_four_dimensions(program: ExportedProgram) -> ExportedProgram:
    """The program with every scaled dot-product attention on (batch, heads, length, size), and otherwise unchanged.

    Dimensions before the heads become one and are restored behind it; missing ones are put in. What torch broadcasts
    along them is expanded. A program whose attentions all have four dimensions is returned as it is.
    """
    import torch

    attention = torch.ops.aten.scaled_dot_product_attention.default
    calls = [node for node in program.graph.nodes if node.target is attention]
    operands = [operand for node in calls for operand in node.args[:3]]  # query, key, value
    if all(operand.meta["val"].ndim == 4 for operand in operands):
        return program
    rewritten: ExportedProgram = program.run_decompositions({attention: _attention})
    return rewritten


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *rest: Any, **named: Any
) -> Any:
    """`scaled_dot_product_attention` by itself, called with four dimensions."""
    import torch

    if query.ndim == key.ndim == value.ndim == 4:
        return NotImplemented  # the operator is kept
    rank = max(query.ndim, key.ndim, value.ndim)
    shapes = [tensor.shape[:-3] for tensor in (query, key, value)]
    lead = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]

    def four(tensor: Tensor) -> Tensor:
        heads = tensor.shape[-3:-2] or (1,)
        return tensor.expand(*lead, *heads, *tensor.shape[-2:]).reshape(prod(lead), *heads, *tensor.shape[-2:])

    if attn_mask is not None and attn_mask.ndim > 3:
        attn_mask = four(attn_mask)
    attention = torch.ops.aten.scaled_dot_product_attention.default
    result = attention(four(query), four(key), four(value), attn_mask, *rest, **named)
    return result.reshape(*lead, *result.shape[-3 if rank > 2 else -2 :])
