"""ONNX operators by opset: each hand-made graph is captured, which compares it with ONNX Runtime, and again here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import edgeprune as ep

F32, I64 = np.float32, np.int64
_RNG = np.random.default_rng(0)


def _w(*shape: int) -> np.ndarray[Any, Any]:
    return _RNG.standard_normal(shape).astype(F32)


def write(
    path: Path, nodes: list[onnx.NodeProto], shape: list[int | str], opset: int, **constants: np.ndarray[Any, Any]
) -> Path:
    """A graph from x to y."""
    groups = nodes[-1].op_type == "GroupNormalization"  # whose shape inference does not tell
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape) if groups else onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.save(model, path)
    return path


def _node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["x", *inputs], ["y"], name="the_node", **attributes)


CASES: dict[str, tuple[onnx.NodeProto, list[int | str], int, dict[str, Any]]] = {
    "conv same upper": (
        _node("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2]), ["n", 3, 7, 8], 7, {"w": _w(4, 3, 4, 3)}),
    "conv same lower": (
        _node("Conv", "w", auto_pad="SAME_LOWER", strides=[2, 2]), ["n", 3, 7, 8], 11, {"w": _w(4, 3, 4, 3)}),
    "conv valid": (_node("Conv", "w", auto_pad="VALID"), ["n", 3, 7, 8], 11, {"w": _w(4, 3, 4, 3)}),
    "conv uneven pads": (_node("Conv", "w", "b", pads=[0, 1, 2, 0]),
        ["n", 3, 7, 8], 11, {"w": _w(4, 3, 3, 3), "b": _w(4)}),
    "conv 1d dilated": (_node("Conv", "w", dilations=[2]), ["n", 4, 9], 13, {"w": _w(4, 4, 3)}),
    "conv transpose": (
        _node("ConvTranspose", "w", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        ["n", 3, 5, 5], 11, {"w": _w(3, 4, 3, 3)}),
    "conv transpose uneven": (
        _node("ConvTranspose", "w", strides=[2, 2], pads=[0, 1, 1, 0]), ["n", 3, 5, 5], 11, {"w": _w(3, 4, 3, 3)}),
    "conv transpose same": (
        _node("ConvTranspose", "w", strides=[2, 2], auto_pad="SAME_UPPER"), ["n", 3, 5, 5], 11, {"w": _w(3, 4, 3, 3)}),
    "max pool ceil": (_node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), ["n", 2, 8, 8], 11, {}),
    "max pool same": (
        _node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), ["n", 2, 8, 8], 8, {}),
    "average pool uneven": (
        _node("AveragePool", kernel_shape=[3, 3], pads=[0, 0, 1, 1]), ["n", 2, 8, 8], 11, {}),
    "average pool counted": (
        _node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), ["n", 2, 8, 8], 11, {}),
    "average pool counted uneven": (
        _node("AveragePool", kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1), ["n", 2, 8, 8], 11, {}),
    "global max pool": (_node("GlobalMaxPool"), ["n", 2, 8, 8], 11, {}),
    "batch norm": (
        _node("BatchNormalization", "s", "b", "m", "v", epsilon=1e-3), ["n", 4, 3, 3], 9,
        {"s": _w(4), "b": _w(4), "m": _w(4), "v": abs(_w(4))}),
    "gemm": (_node("Gemm", "w", "b", alpha=0.5, beta=2.0), ["n", 4], 11, {"w": _w(4, 3), "b": _w(3)}),
    "gemm plain": (_node("Gemm", "w", "b", transB=1), ["n", 4], 11, {"w": _w(3, 4), "b": _w(3)}),
    "softmax before 13": (_node("Softmax"), ["n", 3, 4], 11, {}),
    "softmax 13": (_node("Softmax", axis=1), ["n", 3, 4], 13, {}),
    "log softmax before 13": (_node("LogSoftmax", axis=1), ["n", 3, 4], 11, {}),
    "squeeze attribute": (_node("Squeeze", axes=[2]), ["n", 3, 1], 11, {}),
    "squeeze input": (_node("Squeeze", "a"), ["n", 3, 1], 13, {"a": np.array([-1], I64)}),
    "unsqueeze attribute": (_node("Unsqueeze", axes=[1, 3]), ["n", 3], 11, {}),
    "unsqueeze input": (_node("Unsqueeze", "a"), ["n", 3], 13, {"a": np.array([-1, 1], I64)}),
    "mean attribute": (_node("ReduceMean", axes=[2, 3], keepdims=0), ["n", 3, 4, 4], 11, {}),
    "mean input": (_node("ReduceMean", "a"), ["n", 3, 4, 4], 18, {"a": np.array([2, 3], I64)}),
    "sum input": (_node("ReduceSum", "a", keepdims=0), ["n", 3, 4], 13, {"a": np.array([-1], I64)}),
    "clip attribute": (_node("Clip", min=-0.5, max=0.25), ["n", 3], 7, {}),
    "clip input": (_node("Clip", "", "hi"), ["n", 3], 13, {"hi": np.array(0.25, F32)}),
    "pad attribute": (_node("Pad", pads=[0, 0, 1, 2, 0, 1, 0, 3], value=2.0), ["n", 2, 3, 4], 10, {}),
    "pad reflect": (
        _node("Pad", "p", mode="reflect"), ["n", 2, 3, 4], 13, {"p": np.array([0, 0, 1, 2, 0, 0, 1, 1], I64)}),
    "pad edge": (_node("Pad", "p", mode="edge"), ["n", 2, 3, 4], 13, {"p": np.array([0, 0, 1, 2, 0, 0, 1, 1], I64)}),
    "pad axes": (
        _node("Pad", "p", "v", "a"), ["n", 2, 4], 18,
        {"p": np.array([1, 2], I64), "v": np.array(3, F32), "a": np.array([-1], I64)}),
    "slice attribute": (_node("Slice", starts=[1, -3], ends=[2**31 - 1, -1], axes=[1, 2]), ["n", 4, 5], 9, {}),
    "slice reversed": (
        _node("Slice", "s", "e", "a", "t"), ["n", 4, 5], 11,
        {"s": np.array([-1], I64), "e": np.array([-(2**63) + 1], I64),
         "a": np.array([1], I64), "t": np.array([-1], I64)}),
    "slice reversed steps": (
        _node("Slice", "s", "e", "a", "t"), ["n", 4, 7], 11,
        {"s": np.array([5], I64), "e": np.array([0], I64), "a": np.array([2], I64), "t": np.array([-2], I64)}),
    "upsample": (_node("Upsample", "s", mode="nearest"), ["n", 2, 3, 4], 9, {"s": np.array([1, 1, 2, 3], F32)}),
    "resize nearest": (
        _node("Resize", "", "s", mode="nearest"), ["n", 2, 4, 4], 13, {"s": np.array([1, 1, 1.5, 0.5], F32)}),
    "resize linear": (_node("Resize", "", "s", mode="linear"), ["n", 2, 4, 4], 13, {"s": np.array([1, 1, 2, 2], F32)}),
    "resize aligned": (
        _node("Resize", "", "s", mode="linear", coordinate_transformation_mode="align_corners"),
        ["n", 2, 4, 4], 13, {"s": np.array([1, 1, 2, 2], F32)}),
    "resize cubic": (
        _node("Resize", "", "s", mode="cubic", cubic_coeff_a=-0.75), ["n", 2, 4, 4], 13,
        {"s": np.array([1, 1, 2, 2], F32)}),
    "depth to space dcr": (_node("DepthToSpace", blocksize=2), ["n", 8, 2, 3], 11, {}),
    "depth to space crd": (_node("DepthToSpace", blocksize=2, mode="CRD"), ["n", 8, 2, 3], 11, {}),
    "space to depth": (_node("SpaceToDepth", blocksize=2), ["n", 2, 4, 6], 11, {}),
    "lrn": (_node("LRN", size=3, alpha=0.1, bias=2.0), ["n", 5, 3, 3], 11, {}),
    "prelu": (_node("PRelu", "s"), ["n", 4, 3, 3], 9, {"s": _w(4, 1, 1)}),
    "hard sigmoid": (_node("HardSigmoid"), ["n", 4], 11, {}),
    "hard swish": (_node("HardSwish"), ["n", 4], 14, {}),
    "gelu": (_node("Gelu", approximate="tanh"), ["n", 4], 20, {}),
    "selu": (_node("Selu"), ["n", 4], 11, {}),
    "layer norm": (_node("LayerNormalization", "s", "b"), ["n", 3, 4], 17, {"s": _w(4), "b": _w(4)}),
    "group norm per channel": (
        _node("GroupNormalization", "s", "b", num_groups=2), ["n", 4, 3], 21, {"s": _w(4), "b": _w(4)}),
    "instance norm": (_node("InstanceNormalization", "s", "b"), ["n", 4, 5], 11, {"s": _w(4), "b": _w(4)}),
    "gather": (_node("Gather", "i", axis=1), ["n", 4, 2], 11, {"i": np.array([[0, -1], [2, 2]], I64)}),
    "einsum": (_node("Einsum", "w", equation="nij,jk->nik"), ["n", 3, 4], 12, {"w": _w(4, 2)}),
    "div": (_node("Div", "d"), ["n", 4], 13, {"d": np.array(3.0, F32)}),
    "flatten last": (_node("Flatten", axis=-1), ["n", 3, 4], 13, {}),
    "flatten axis 2": (_node("Flatten", axis=2), ["n", 3, 4], 9, {}),
    "tile": (_node("Tile", "r"), ["n", 3], 13, {"r": np.array([1, 2], I64)}),
    "expand": (_node("Expand", "r"), ["n", 1, 3], 13, {"r": np.array([1, 5, 1], I64)}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_what_onnx_runtime_gives(case: str, tmp_path: Path) -> None:
    node, shape, opset, constants = CASES[case]
    path = write(tmp_path / "one.onnx", [node], shape, opset, **constants)
    captured = ep.capture(path)
    x = torch.randn(3, *(int(size) for size in shape[1:]))
    (expected,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})
    assert captured.batch_dynamic
    with torch.no_grad():
        np.testing.assert_allclose(captured.module(x).numpy(), expected, rtol=1e-4, atol=1e-5)
