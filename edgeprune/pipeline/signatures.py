"""From an operator at one choice of widths to what its micro-benchmark is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.records.operators import (
    ACTIVATIONS,
    AttentionSignature,
    ConvSignature,
    LinearSignature,
    MatMulSignature,
    OperatorSignature,
)

if TYPE_CHECKING:
    from edgeprune.graph.shapes import Concrete

__all__ = ["signature_of"]


def signature_of(concrete: Concrete) -> OperatorSignature | None:
    """What a micro-benchmark of the operator is made from; None where there is none of its kind."""
    settings: dict[str, Any] = dict(concrete.settings)
    activation = concrete.activation if concrete.activation in ACTIVATIONS else ""
    if concrete.kind in ("conv", "depthwise", "grouped", "conv_transpose"):
        (batch, channels, *size), (_, out, *_) = concrete.inputs[0], concrete.outputs[0]
        return ConvSignature(
            in_channels=channels,
            out_channels=out,
            in_size=tuple(size),
            kernel=tuple(settings["kernel"]),
            stride=tuple(settings["stride"]),
            padding=tuple(settings["padding"]),
            dilation=tuple(settings["dilation"]),
            groups=int(settings.get("groups", 1)),
            activation=activation,
            transposed=concrete.kind == "conv_transpose",
            output_padding=tuple(settings.get("output_padding", ())) if concrete.kind == "conv_transpose" else (),
            batch=batch,
        )
    if concrete.kind == "linear":
        given, made = concrete.inputs[0], concrete.outputs[0]
        rows = int(np.prod(given[:-1]))
        return LinearSignature(rows, given[-1], made[-1], bias=len(concrete.parameters) > 1, activation=activation)
    if concrete.kind == "matmul" and len(concrete.inputs) == 2:
        left, right = concrete.inputs
        return MatMulSignature(int(np.prod(left[:-2])), left[-2], left[-1], right[-1])
    if concrete.kind == "attention":
        return AttentionSignature(*concrete.inputs[0])
    return None
