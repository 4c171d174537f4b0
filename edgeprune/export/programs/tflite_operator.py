"""Runs in the environment `tflite`, not in edgeprune: .tflite files of one operator, for timing it on a device.

Operators are written as litert-torch writes them: channels last, padding of its own where SAME is not the same, the
activation in the operator where TFLite has that. All weights of one operator are equal: dense kernels do not care.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

FUSED = {"": 0, "relu": 1, "relu6": 3}
ALONE = {
    "sigmoid": "LOGISTIC",
    "tanh": "TANH",
    "hard_swish": "HARD_SWISH",
    "leaky_relu": "LEAKY_RELU",
    "gelu": "GELU",
    "silu": "LOGISTIC",
}
SAME, VALID = 0, 1


class Graph:
    """A model under construction."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self.inputs: list[int] = []

    def tensor(self, shape: Sequence[int], data: Any = None, kind: str = "FLOAT32") -> int:
        """A tensor, with data where it is constant; its number."""
        made = schema.TensorT()
        made.name, made.shape, made.buffer = f"tensor_{len(self.tensors)}", list(shape), 0
        made.type = getattr(schema.TensorType, kind)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.buffers.append(buffer)
            made.buffer = len(self.buffers) - 1
        self.tensors.append(made)
        return len(self.tensors) - 1

    def input(self, name: str, *shape: int) -> int:
        """An input; its number."""
        number = self.tensor(shape)
        self.tensors[number].name = name
        self.inputs.append(number)
        return number

    def weight(self, shape: Sequence[int], fan_in: int) -> int:
        """Outputs for standard normal inputs are then about standard normal."""
        return self.tensor(shape, np.full(shape, 1 / math.sqrt(fan_in), np.float32))

    def add(self, operator: str, inputs: Sequence[int], shape: Sequence[int], options: str = "", **values: Any) -> int:
        """An operator with one output; the number of that."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, operator)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(self.codes), list(inputs), [self.tensor(shape)]
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in values.items():
                setattr(made.builtinOptions, name, value)
        self.codes.append(code)
        self.operators.append(made)
        return int(made.outputs[0])

    def activated(self, number: int, activation: str) -> int:
        """The activation as an operator of its own, where it is not fused."""
        if activation in FUSED:
            return number
        shape = self.tensors[number].shape
        options = {"LEAKY_RELU": "LeakyReluOptions", "GELU": "GeluOptions"}.get(ALONE[activation], "")
        values = {"alpha": 0.01} if activation == "leaky_relu" else {}
        gate = self.add(ALONE[activation], [number], shape, options, **values)
        return self.add("MUL", [number, gate], shape, "MulOptions") if activation == "silu" else gate

    def content(self, output: int) -> bytes:
        """The file."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = (
            self.tensors,
            self.operators,
            self.inputs,
            [output],
        )
        model = schema.ModelT()
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, self.codes, [graph], self.buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def conv(graph: Graph, of: "dict[str, Any]") -> int:
    """A convolution over one or two dimensions; depthwise where each channel is a group."""
    if of["transposed"] or len(of["kernel"]) > 2:
        raise NotImplementedError("no such operator is made for TFLite")
    size, kernel, stride, padding, dilation, out = (
        [1 if name not in ("padding",) else 0] * (2 - len(of["kernel"])) + list(of[name])
        for name in ("in_size", "kernel", "stride", "padding", "dilation", "out_size")
    )
    channels, groups = of["in_channels"], of["groups"]
    number = graph.input("x", of["batch"], *size, channels)
    same = stride == [1, 1] and all(2 * p == d * (k - 1) for p, d, k in zip(padding, dilation, kernel))
    if not same and any(padding):
        pads = np.array([[0, 0], *([p, p] for p in padding), [0, 0]], np.int32)
        shape = [of["batch"], *(n + 2 * p for n, p in zip(size, padding)), channels]
        number = graph.add("PAD", [number, graph.tensor((4, 2), pads, "INT32")], shape, "PadOptions")
    depthwise = groups == channels and groups > 1
    first = (1, *kernel, of["out_channels"]) if depthwise else (of["out_channels"], *kernel, channels // groups)
    inputs = [number, graph.weight(first, channels // groups * math.prod(kernel))]
    inputs.append(graph.tensor((of["out_channels"],), np.zeros(of["out_channels"], np.float32)))
    more = {"depthMultiplier": of["out_channels"] // channels} if depthwise else {}
    found = graph.add(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        inputs,
        [of["batch"], *out, of["out_channels"]],
        "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        padding=SAME if same else VALID,
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=FUSED.get(of["activation"], 0),
        **more,
    )
    return graph.activated(found, of["activation"])


def linear(graph: Graph, of: "dict[str, Any]") -> int:
    """A fully connected layer."""
    inputs = [
        graph.input("x", of["rows"], of["in_features"]),
        graph.weight((of["out_features"], of["in_features"]), of["in_features"]),
        graph.tensor((of["out_features"],), np.zeros(of["out_features"], np.float32)) if of["bias"] else -1,
    ]
    fused = FUSED.get(of["activation"], 0)
    options = {"fusedActivationFunction": fused, "keepNumDims": True}
    found = graph.add("FULLY_CONNECTED", inputs, (of["rows"], of["out_features"]), "FullyConnectedOptions", **options)
    return graph.activated(found, of["activation"])


def matmul(graph: Graph, of: "dict[str, Any]") -> int:
    """A product of two computed matrices."""
    left = graph.input("x", of["batch"], of["m"], of["k"])
    right = graph.input("z", of["batch"], of["k"], of["n"])
    return graph.add("BATCH_MATMUL", [left, right], (of["batch"], of["m"], of["n"]), "BatchMatMulOptions")


def attention(graph: Graph, of: "dict[str, Any]") -> int:
    """softmax(q kᵀ / √d) v."""
    whole = (of["batch"], of["heads"], of["tokens"], of["head_size"])
    turned, scores = (*whole[:2], whole[3], whole[2]), (*whole[:3], whole[2])
    scale = graph.tensor((), np.array(of["head_size"] ** -0.5, np.float32))
    query = graph.add("MUL", [graph.input("q", *whole), scale], whole, "MulOptions")
    product = graph.add("BATCH_MATMUL", [query, graph.input("k", *turned)], scores, "BatchMatMulOptions")
    shares = graph.add("SOFTMAX", [product], scores, "SoftmaxOptions", beta=1.0)
    return graph.add("BATCH_MATMUL", [shares, graph.input("v", *whole)], whole, "BatchMatMulOptions")


KINDS: "dict[str, Callable[[Graph, dict[str, Any]], int]]" = {
    "conv": conv,
    "linear": linear,
    "matmul": matmul,
    "attention": attention,
}


def build(kind: str, signature: "dict[str, Any]") -> "dict[str, Any]":
    """operator.tflite of a signature; its inputs."""
    graph = Graph()
    content = graph.content(KINDS[kind](graph, signature))
    Path("operator.tflite").write_bytes(content)
    named = [graph.tensors[number] for number in graph.inputs]
    return {"inputs": [{"name": one.name, "dtype": "float32", "shape": list(one.shape)} for one in named]}


OPERATIONS = {"build": build}
