"""Models of one operator, a few hundred bytes each, for timing the operator on a device.

Weights do not travel: each is a ConstantOfShape, which ONNX Runtime folds into an initializer before it packs weights
and chooses layouts (tests/export/test_micro.py compares with weights in the file). All its values are the same, of a
size that keeps the outputs near one: dense kernels take the same time for any normal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.records.artifact import TensorSpec
from edgeprune.records.operators import (
    AttentionSignature,
    ConvSignature,
    LinearSignature,
    MatMulSignature,
    MicroModel,
    OperatorSignature,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["micro_model"]

_OPSET = 20  # that of the exporter
_IR_VERSION = 9  # which goes with it: older runtimes refuse newer ones


def micro_model(signature: OperatorSignature) -> MicroModel:
    """An ONNX model that computes just this operator, and the activation behind it; the same bytes for equal ones."""
    graph = _Graph()
    build = {
        ConvSignature: _conv,
        LinearSignature: _linear,
        MatMulSignature: _matmul,
        AttentionSignature: _attention,
    }
    build[type(signature)](graph, signature)  # type: ignore[operator]  # each of its own kind
    return graph.model(signature.key)


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[TensorSpec] = []
        self.output = ""
        self.shape: tuple[int, ...] = ()

    def input(self, name: str, *shape: int) -> str:
        self.inputs.append(TensorSpec(name, "float32", shape))
        return name

    def weight(self, name: str, shape: Sequence[int], fan_in: int) -> str:
        """Outputs for standard normal inputs are then standard normal."""
        import numpy as np
        from onnx import numpy_helper

        value = numpy_helper.from_array(np.array([1 / math.sqrt(fan_in)], np.float32), "")
        self.initializers.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"))
        self.add("ConstantOfShape", [f"{name}_shape"], name, value=value)
        return name

    def scalar(self, name: str, value: float) -> str:
        import numpy as np
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def end(self, output: str, shape: Sequence[int], activation: str = "") -> None:
        """The output, behind its activation."""
        self.shape = tuple(shape)
        plain = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "hard_swish": "HardSwish", "gelu": "Gelu"}
        if activation in plain:
            output = self.add(plain[activation], [output], "activated")
        elif activation == "leaky_relu":
            output = self.add("LeakyRelu", [output], "activated", alpha=0.01)
        elif activation == "relu6":
            output = self.add("Clip", [output, self.scalar("least", 0.0), self.scalar("most", 6.0)], "activated")
        elif activation == "silu":
            self.add("Sigmoid", [output], "gate")
            output = self.add("Mul", [output, "gate"], "activated")
        self.output = output

    def model(self, name: str) -> MicroModel:
        import onnx
        from onnx import helper

        def value(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

        inputs = [value(spec.name, [int(size) for size in spec.shape]) for spec in self.inputs]
        graph = helper.make_graph(self.nodes, name, inputs, [value(self.output, self.shape)], self.initializers)
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="edgeprune")
        return MicroModel(model.SerializeToString(deterministic=True), tuple(self.inputs))


def _conv(graph: _Graph, conv: ConvSignature) -> None:
    narrow, wide = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    first = (conv.in_channels, wide) if conv.transposed else (conv.out_channels, narrow)
    inputs = [
        graph.input("x", conv.batch, conv.in_channels, *conv.in_size),
        graph.weight("w", (*first, *conv.kernel), narrow * math.prod(conv.kernel)),
    ]
    if conv.bias:
        inputs.append(graph.weight("b", (conv.out_channels,), 1))
    attributes: dict[str, Any] = {
        "kernel_shape": conv.kernel,
        "strides": conv.stride,
        "pads": conv.padding * 2,
        "dilations": conv.dilation,
        "group": conv.groups,
    }
    if conv.transposed:
        attributes["output_padding"] = conv.output_padding
    graph.add("ConvTranspose" if conv.transposed else "Conv", inputs, "y", **attributes)
    graph.end("y", (conv.batch, conv.out_channels, *conv.out_size), conv.activation)


def _linear(graph: _Graph, linear: LinearSignature) -> None:
    inputs = [
        graph.input("x", linear.rows, linear.in_features),
        graph.weight("w", (linear.out_features, linear.in_features), linear.in_features),
    ]
    if linear.bias:
        inputs.append(graph.weight("b", (linear.out_features,), 1))
    graph.add("Gemm", inputs, "y", transB=1)
    graph.end("y", (linear.rows, linear.out_features), linear.activation)


def _matmul(graph: _Graph, matmul: MatMulSignature) -> None:
    left = graph.input("x", matmul.batch, matmul.m, matmul.k)
    right = graph.input("z", matmul.batch, matmul.k, matmul.n)
    graph.end(graph.add("MatMul", [left, right], "y"), (matmul.batch, matmul.m, matmul.n))


def _attention(graph: _Graph, attention: AttentionSignature) -> None:
    """As the exporter writes scaled_dot_product_attention: both factors carry the root of the scale."""
    batch, heads, tokens, size = attention.batch, attention.heads, attention.tokens, attention.head_size
    scale = graph.scalar("scale", size**-0.25)
    query = graph.add("Mul", [graph.input("q", batch, heads, tokens, size), scale], "scaled_q")
    key = graph.add("Mul", [graph.input("k", batch, heads, size, tokens), scale], "scaled_k")
    graph.add("MatMul", [query, key], "scores")
    graph.add("Softmax", ["scores"], "shares", axis=-1)
    value = graph.input("v", batch, heads, tokens, size)
    graph.end(graph.add("MatMul", ["shares", value], "y"), (batch, heads, tokens, size))
