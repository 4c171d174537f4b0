"""Whole ONNX files: captured, pruned, exported; and those that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import edgeprune as ep
from edgeprune.errors import CaptureError
from edgeprune.graph.onnx_input import compare
from edgeprune.graph.onnx_input.operators.table import OPERATORS


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.right = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(14 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x + self.left(x), self.right(x)], 1)
        x = nn.functional.adaptive_avg_pool2d(x, 4)
        return self.head(x.view(x.size(0), -1))


def _exported(path: Path, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    net = _Net().eval()
    torch.onnx.export(
        net, (torch.randn(1, 3, 8, 8),), str(path), input_names=["image"], output_names=["scores"], **options
    )
    return net


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_is_captured_pruned_and_verified(tmp_path: Path, dynamic: bool, folded: bool) -> None:
    axes = {"image": {0: "n"}} if dynamic else None
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    net = _exported(
        tmp_path / "a.onnx",
        dynamo=False,
        opset_version=11,
        dynamic_axes=axes,
        training=mode,
        do_constant_folding=folded,
    )
    captured = ep.capture(tmp_path / "a.onnx")
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(captured.module(x), net(x), rtol=1e-4, atol=1e-5)
    assert "head.weight" in dict(captured.module.named_parameters())
    pruned = captured.prune(captured.uniform(0.5))
    assert pruned.verification is not None
    assert pruned.verification.relative_error < 1e-5
    assert sum(p.numel() for p in pruned.module.parameters()) < 0.6 * sum(
        p.numel() for p in captured.module.parameters()
    )


@pytest.mark.filterwarnings("ignore")
def test_a_pruned_file_is_exported_with_the_names_of_the_original(tmp_path: Path) -> None:
    _exported(tmp_path / "a.onnx", dynamo=False, opset_version=13)
    captured = ep.capture(tmp_path / "a.onnx")
    pruned = captured.prune(captured.uniform(0.5))
    ep.export(pruned, tmp_path / "small.onnx")
    session = ort.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(2, 3, 8, 8)
    (scores,) = session.run(["scores"], {"image": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(scores, pruned.module(x).numpy(), rtol=1e-3, atol=1e-5)


def _file(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    opset: int = 13,
    domain: str = "",
    shape: Any = (1, 4),
    rank: int = 2,
    **constants: Any,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("node", "options", "says"),
    [
        (helper.make_node("Det", ["x"], ["y"], name="d"), {}, r"node 'd': operator Det .*opset 13"),
        (helper.make_node("Mine", ["x"], ["y"], domain="me"), {"domain": "me"}, "custom operator Mine .*'me'"),
        (helper.make_node("QuantizeLinear", ["x", "s"], ["y"], name="q"), {"s": np.float32(1)}, "is quantised already"),
        (helper.make_node("Relu", ["x"], ["y"]), {"opset": 6}, "opset 6 is older than 7"),
        (helper.make_node("Relu", ["x"], ["y"]), {"shape": ("n", "width")}, r"dimension 1 \(width\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_captured_is_refused_by_name(
    tmp_path: Path, node: onnx.NodeProto, options: dict[str, Any], says: str
) -> None:
    options = {k: np.asarray(v) if isinstance(v, np.generic) else v for k, v in options.items()}
    with pytest.raises(CaptureError, match=says) as refused:
        ep.capture(_file(tmp_path / "no.onnx", [node], **options))
    assert refused.value.hint


def test_unnamed_sizes_are_asked_for_and_taken_from_the_example(tmp_path: Path) -> None:
    path = _file(tmp_path / "w.onnx", [helper.make_node("Relu", ["x"], ["y"])], shape=("n", "width"))
    captured = ep.capture(path, torch.randn(2, 6))
    assert captured.module(torch.tensor([[-1.0, 2, -3, 4, -5, 6]] * 2)).sum() == 24


def test_external_data_outside_of_the_folder_or_missing_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    path = _file(tmp_path / "e.onnx", [node], w=np.arange(4, dtype=np.float32))
    for location, says in (("../w.bin", "outside"), ("/etc/hostname", "outside"), ("w.bin", "missing")):
        model = onnx.load(path, load_external_data=False)
        (weight,) = model.graph.initializer
        weight.ClearField("raw_data")
        del weight.external_data[:]
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(CaptureError, match=says):
            ep.capture(path)
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    assert ep.capture(path).module(torch.zeros(1, 4)).tolist() == [[0, 1, 2, 3]]


def test_a_literal_batch_in_a_merged_reshape_stays_fixed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "merged"], ["a"]),
        helper.make_node("ReduceMean", ["a"], ["b"], axes=[0], keepdims=1),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    path = _file(tmp_path / "f.onnx", nodes, merged=np.array([2, 2], np.int64))
    captured = ep.capture(path)
    assert not captured.batch_dynamic
    x = torch.tensor([[1.0, 2, 3, 4]])
    (expected,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})
    assert captured.module(x).tolist() == expected.tolist() == [[3, 5], [5, 7]]


def test_a_wrong_operator_is_found_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "Sigmoid", lambda _, x: torch.tanh(x))
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Sigmoid", ["a"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"], name="third"),
    ]
    with pytest.raises(CaptureError, match=r"first node that differs is 'second' \(Sigmoid\)"):
        ep.capture(_file(tmp_path / "s.onnx", nodes, shape=("n", 4)))


def test_the_difference_is_in_units_of_the_tolerance() -> None:
    expected = [np.array([1.0, 2.0], np.float32)]
    close = compare.disagreement(lambda x: x, expected, [torch.tensor([1.0, 2.0001])])
    far = compare.disagreement(lambda x: x, expected, [torch.tensor([1.0, 2.001])])
    assert close < 1 < far


def test_no_file_and_no_onnx_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such file"):
        ep.capture(tmp_path / "absent.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"\x08\xff junk")
    with pytest.raises(CaptureError, match="not a"):
        ep.capture(tmp_path / "junk.onnx")


def test_a_weight_that_is_only_moved_is_a_parameter_in_its_used_shape(tmp_path: Path) -> None:
    shape = np.array([4, 6], np.int64)
    weight = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    nodes = [
        helper.make_node("Reshape", ["w", "back"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0]),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "c"], ["y"]),
    ]
    path = _file(tmp_path / "moved.onnx", nodes, w=weight, back=shape[::-1].copy())
    captured = ep.capture(path)
    assert torch.equal(dict(captured.module.named_parameters())["w"], torch.from_numpy(weight.reshape(6, 4).T))
    names = {str(node.target) for node in captured.module.graph.nodes if node.op == "call_function"}
    assert names == {"aten.matmul.default"}
    assert captured.module(torch.tensor([[1.0, 0, 0, 2]])).tolist() == [[6, 18, 30, 42, 54, 66]]


def test_a_weight_with_another_use_is_not_moved(tmp_path: Path) -> None:
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    captured = ep.capture(_file(tmp_path / "tied.onnx", nodes, w=weight))
    assert torch.equal(dict(captured.module.named_parameters())["w"], torch.from_numpy(weight))
    assert captured.module(torch.tensor([[1.0, 0, 0, 0]])).tolist() == (weight[:, :1].T @ weight).tolist()
