"""A C program with the package in it computes what Python computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeprune.package.base import Model
from edgeprune.package.build import build
from edgeprune.package.c import CPackager
from edgeprune.package.write import write_folder
from edgeprune.records.artifact import TensorSpec
from edgeprune.testing.packagers import example_lock
from tests.package.building import contents
from tests.package.c_runtime import in_c, in_python


def network() -> bytes:
    """A convolution, a pooling and a linear layer with random weights, as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(3, 2, 3, 3)).astype(np.float32),
        "v": random.normal(size=(3, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "v"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(deterministic=True)


def test_the_packaged_model_computes_the_same_in_c(tmp_path: Path) -> None:
    data = network()
    lock = example_lock(data)
    given = TensorSpec("image", "float32", ("batch", 2, 6, 6))
    taken = TensorSpec("logits", "float32", ("batch", 5))
    artifact = type(lock.artifact)(lock.artifact.path, "onnx", lock.artifact.sha256, len(data), (given,), (taken,))
    made = contents(Model("net", example_lock(data, artifact=artifact), data))
    write_folder(build(CPackager(), made), tmp_path / "package")
    image = np.random.default_rng(1).normal(size=(1, 2, 6, 6)).astype(np.float32)
    expected = in_python(data, image)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_array_equal(in_c(tmp_path / "package", "digits", image, tmp_path / "program"), expected)
