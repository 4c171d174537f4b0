"""Small ONNX files made on the spot, described as artifacts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.records.artifact import Artifact, TensorSpec


def chain_of_matmuls(path: Path, *, width: int, layers: int, seed: int = 0) -> Artifact:
    """`layers` products with (width, width) float32 matrices: 4 * layers * width**2 bytes of weights."""
    random = np.random.default_rng(seed)
    weights = [
        np.resize(random.standard_normal(width + 1) / width**0.5, (width, width)).astype(np.float32)
        for _ in range(layers)
    ]
    initializers = [numpy_helper.from_array(weight, f"w{layer}") for layer, weight in enumerate(weights)]
    names = [f"y{layer}" for layer in range(layers + 1)]
    nodes = [helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]) for layer in range(layers)]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in names]
    graph = helper.make_graph(nodes, "chain", [tensors[0]], [tensors[-1]], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    spec = ("float32", ("batch", width))
    return described(path, (TensorSpec("y0", *spec),), (TensorSpec(f"y{layers}", *spec),))


def described(path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Artifact:
    """The record of a file as it is."""
    data = path.read_bytes()
    return Artifact(path, "onnx", hashlib.sha256(data).hexdigest(), len(data), inputs, outputs)
