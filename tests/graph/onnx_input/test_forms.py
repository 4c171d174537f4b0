"""Forms that exporters write: captured, pruned, and compared with ONNX Runtime on the file with zeroed weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import edgeprune as ep
from edgeprune.errors import CaptureError

_RNG = np.random.default_rng(0)
_KEPT = [0, 2, 3, 6]
_REMOVED = [1, 4, 5, 7]


def _w(*shape: int) -> np.ndarray[Any, Any]:
    return _RNG.standard_normal(shape).astype(np.float32)


def _write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    shape: list[int | str],
    *,
    kind: int = TensorProto.FLOAT,
    **weights: Any,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _run(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (result,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    return np.asarray(result)


def _check(path: Path, x: np.ndarray[Any, Any], consumer: str, removed: tuple[Any, ...]) -> ep.Pruned:
    """Prune the only group of the file to `_KEPT`; without them the consumer's weights at `removed` count for nothing.

    The captured graph, the pruned one and the file exported from it are compared with ONNX Runtime on the original.
    """
    captured = ep.capture(path)
    assert captured.batch_dynamic
    (group,) = captured.groups
    assert group.units == 8
    pruned = captured.prune(captured.candidate({group.name: _KEPT}))
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == consumer:
            weight = numpy_helper.to_array(tensor).copy()
            weight[removed] = 0
            tensor.CopyFrom(numpy_helper.from_array(weight, consumer))
    onnx.save(model, path.with_name("zeroed.onnx"))
    expected = _run(path.with_name("zeroed.onnx"), x)
    with torch.no_grad():
        np.testing.assert_allclose(captured.module(torch.from_numpy(x)).numpy(), _run(path, x), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(pruned.module(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - _run(path, x)).max() > 0.01  # what went mattered
    ep.export(pruned, path.with_name("small.onnx"))
    np.testing.assert_allclose(_run(path.with_name("small.onnx"), x), expected, rtol=1e-4, atol=1e-5)
    return pruned


def _shapes(pruned: ep.Pruned) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in pruned.module.state_dict().items()}


def test_an_image_with_channels_last_is_turned(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "kernel", "bias"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Flatten", ["last"], ["f"]),
        helper.make_node("Gemm", ["f", "head", "offset"], ["y"], transB=1),
    ]
    weights = {"kernel": _w(8, 3, 3, 3), "bias": _w(8), "head": _w(5, 2 * 3 * 8), "offset": _w(5)}
    path = _write(tmp_path / "nhwc.onnx", nodes, ["n", 4, 5, 3], **weights)
    columns = [8 * position + unit for position in range(6) for unit in _REMOVED]
    pruned = _check(path, _w(3, 4, 5, 3), "head", (slice(None), columns))
    assert _shapes(pruned) == {"kernel": (4, 3, 3, 3), "bias": (4,), "head": (5, 24), "offset": (5,)}


def test_a_batch_norm_beside_its_convolution_goes_with_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["b"], epsilon=1e-2),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Conv", ["r", "second"], ["d"]),
        helper.make_node("ReduceMean", ["d"], ["y"], axes=[2, 3], keepdims=0),
    ]
    statistics = {"scale": _w(8), "shift": _w(8), "mean": _w(8), "var": np.abs(_w(8)) + 0.1}
    path = _write(tmp_path / "bn.onnx", nodes, [1, 2, 5, 5], first=_w(8, 2, 3, 3), second=_w(3, 8, 2, 2), **statistics)
    zeroed = (slice(None), _REMOVED)
    pruned = _check(path, _w(1, 2, 5, 5), "second", zeroed)
    assert _shapes(pruned) == {
        "first": (4, 2, 3, 3),
        "second": (3, 4, 2, 2),
        **dict.fromkeys(("scale", "shift", "mean", "var"), (4,)),
    }
    assert {name for name, _ in pruned.module.named_buffers()} == {"mean", "var"}
    assert pruned.module.get_buffer("var").tolist() == statistics["var"][_KEPT].tolist()


def test_shapes_that_the_file_computes_follow_the_batch_and_the_width(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"]),
        helper.make_node("Shape", ["c"], ["shape"]),
        *(helper.make_node("Gather", ["shape", f"at{axis}"], [f"size{axis}"]) for axis in range(4)),
        helper.make_node("Mul", ["size2", "size3"], ["area"]),
        helper.make_node("Mul", ["size1", "area"], ["width"]),
        helper.make_node("Unsqueeze", ["size0", "zero"], ["rows"]),
        helper.make_node("Unsqueeze", ["width", "zero"], ["columns"]),
        helper.make_node("Concat", ["rows", "columns"], ["flat"], axis=0),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["y"]),
    ]
    places = {f"at{axis}": np.array(axis, np.int64) for axis in range(4)}
    weights = {"kernel": _w(8, 2, 2, 2), "head": _w(8 * 6, 3), "zero": np.array([0], np.int64)}
    path = _write(tmp_path / "shape.onnx", nodes, ["n", 2, 3, 4], **weights, **places)
    rows = [6 * unit + position for unit in _REMOVED for position in range(6)]
    pruned = _check(path, _w(7, 2, 3, 4), "head", (rows,))
    assert _shapes(pruned) == {"kernel": (4, 2, 2, 2), "head": (24, 3)}


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_tokens_look_up_an_embedding_that_is_pruned(tmp_path: Path, kind: int) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "head"], ["y"]),
    ]
    path = _write(tmp_path / "tokens.onnx", nodes, ["n", 5], kind=kind, table=_w(11, 8), head=_w(8, 3))
    tokens = np.arange(15, dtype=helper.tensor_dtype_to_np_dtype(kind)).reshape(3, 5) % 11
    pruned = _check(path, tokens, "head", (_REMOVED,))
    assert _shapes(pruned) == {"table": (11, 4), "head": (4, 3)}


def test_control_flow_is_refused_by_name(tmp_path: Path) -> None:
    branches = {
        f"{word}_branch": helper.make_graph(
            [helper.make_node(kind, ["x"], [word])], word, [], [helper.make_tensor_value_info(word, 1, [None, None])]
        )
        for word, kind in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [helper.make_node("If", ["flag"], ["y"], name="choice", **branches)]
    path = _write(tmp_path / "if.onnx", nodes, ["n", 4], flag=np.array(True))
    with pytest.raises(CaptureError, match=r"node 'choice': control flow, operator If .*opset 13") as refused:
        ep.capture(path)
    assert "static" in str(refused.value.hint)


@pytest.mark.parametrize("ir_version", [2, 8])
def test_a_file_without_a_version_of_its_operators_is_refused(tmp_path: Path, ir_version: int) -> None:
    path = _write(tmp_path / "none.onnx", [helper.make_node("Relu", ["x"], ["y"])], ["n", 4])
    model = onnx.load(path)
    model.ir_version = ir_version
    del model.opset_import[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CaptureError, match="opset_import") as refused:
        ep.capture(path)
    assert refused.value.hint
