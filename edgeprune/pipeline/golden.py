"""A tiny network with known outputs: a runtime that does not compute them must not be measured with."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.agent.bootstrap import Bootstrap
from edgeprune.errors import TargetError

__all__ = ["TOLERANCE", "Golden", "golden_model", "run_golden"]

TOLERANCE = 1e-4  # of the largest output


@dataclass(frozen=True, slots=True)
class Golden:
    """An ONNX model, its inputs, and its outputs as this machine computes them."""

    model: bytes
    inputs: Mapping[str, Mapping[str, Any]]  # by name: flat values and shape
    outputs: tuple[tuple[float, ...], ...]


@functools.cache
def golden_model() -> Golden:
    """Convolution, depthwise convolution, pooling and a linear layer; opset 13, which old runtimes know as well."""
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.RandomState(0)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "d": (8, 1, 3, 3), "l": (8, 5), "c": (5,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["z"], group=8),
        helper.make_node("GlobalAveragePool", ["z"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "l", "c"], ["out"]),
    ]
    shape = (2, 3, 10, 10)
    graph = helper.make_graph(
        nodes,
        "golden",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (2, 5))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(proto)
    model = proto.SerializeToString()
    x = random.standard_normal(shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": x})
    return Golden(
        model,
        {"x": {"values": x.ravel().tolist(), "shape": list(shape)}},
        tuple(tuple(output.ravel().tolist()) for output in outputs),
    )


def run_golden(bootstrap: Bootstrap, where: str) -> tuple[Mapping[str, Any], float]:
    """Run it on the device: its answer, and the largest difference as a share of the largest output.

    Raises TargetError (NO_RUNTIME) where the runtime is missing or computes something else.
    """
    golden = golden_model()
    answer = bootstrap.run_golden(golden.model, golden.inputs)
    error = difference(golden.outputs, answer["outputs"])
    if not error <= TOLERANCE:
        raise TargetError(
            f"{where}: ONNX Runtime {answer['version']} there computes something else than here: the outputs of a test "
            f"network differ by {error:.2g} of their size",
            hint="install another version: edgeprune device setup TARGET --runtime onnxruntime==VERSION",
            outcome="NO_RUNTIME",
        )
    return answer, error


def difference(expected: tuple[tuple[float, ...], ...], actual: Any) -> float:
    """The largest difference as a share of the largest expected value; infinite where sizes or kinds differ."""
    if not isinstance(actual, list) or [len(row) for row in actual] != [len(row) for row in expected]:
        return math.inf
    scale = max(abs(value) for row in expected for value in row)
    pairs = [pair for row, other in zip(expected, actual, strict=True) for pair in zip(row, other, strict=True)]
    differences = [abs(one - other) / scale for one, other in pairs]
    return math.inf if any(math.isnan(value) for value in differences) else max(differences)
