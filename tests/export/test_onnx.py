from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgeprune import registry
from edgeprune.errors import ParityError, UsageError
from edgeprune.export import manifest
from edgeprune.export.onnx import OnnxExporter, clean
from edgeprune.export.onnx_runner import OnnxRunner
from edgeprune.graph.capture import capture
from edgeprune.records.artifact import TensorSpec
from edgeprune.testing.exporters import ExporterContract
from edgeprune.testing.importances import SmallNetwork


class TestOnnxExporter(ExporterContract):
    factory = staticmethod(OnnxExporter)


def test_registered_name() -> None:
    assert registry.resolve("exporters", "onnx") is OnnxExporter


def test_computes_what_the_module_computes_at_any_batch(tmp_path: Path) -> None:
    module = SmallNetwork().eval()
    artifact = OnnxExporter().export(module, (torch.zeros(1, 2, 5, 5),), tmp_path / "net.onnx")
    assert artifact.inputs == (TensorSpec("x", "float32", ("batch", 2, 5, 5)),)
    assert artifact.outputs[0].shape == ("batch", 3)
    session = onnxruntime.InferenceSession(str(artifact.path))
    for batch in (1, 2, 7):
        x = torch.randn(batch, 2, 5, 5)
        with torch.no_grad():
            expected = module(x).numpy()
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, rtol=1e-4, atol=1e-6)


def test_captured_graph_in_train_mode_exports_its_inference(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2))
    captured = capture(model, (torch.randn(2, 1, 4, 4),))
    captured.module.train()
    path = OnnxExporter().export(captured.module, captured.example_inputs, tmp_path / "net.onnx").path
    assert captured.module.training
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"Dropout", "RandomUniformLike", "Bernoulli"}
    assert "BatchNormalization" not in operators  # folded into the convolution


def test_file_is_valid_opset_20_with_its_weights_inside(tmp_path: Path) -> None:
    path = OnnxExporter().export(SmallNetwork(), (torch.zeros(2, 2, 5, 5),), tmp_path / "net.onnx").path
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert model.producer_name == "edgeprune"
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert {"first.weight", "head.weight"} <= {tensor.name for tensor in model.graph.initializer}


def test_two_inputs_of_which_one_has_no_batch(tmp_path: Path) -> None:
    class Shifted(nn.Module):
        def forward(self, image: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
            return image + shift, image.sum(1)

    example = (torch.zeros(3, 4), torch.zeros(4))
    artifact = OnnxExporter().export(Shifted(), example, tmp_path / "net.onnx")
    assert [(spec.name, spec.shape) for spec in artifact.inputs] == [("image", ("batch", 4)), ("shift", (4,))]
    assert [spec.shape for spec in artifact.outputs] == [("batch", 4), ("batch",)]


def test_same_bytes_in_another_process(tmp_path: Path) -> None:
    program = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from edgeprune.export.onnx import OnnxExporter\n"
        "from edgeprune.testing.importances import SmallNetwork\n"
        "torch.manual_seed(0)\n"
        "print(OnnxExporter().export(SmallNetwork(), (torch.zeros(1, 2, 5, 5),), Path(sys.argv[1])).sha256)\n"
    )
    digests = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        command = [sys.executable, "-c", program, str(folder / "net.onnx")]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, cwd=folder, capture_output=True, text=True, check=True
        )
        digests.append(done.stdout)
        assert done.stderr == ""  # no chatter there either
    assert digests[0] == digests[1]


def test_clean_removes_documentation_everywhere() -> None:
    tensor = onnx.helper.make_tensor_value_info("x", 1, ["s7", 2], doc_string="secret")
    output = onnx.helper.make_tensor_value_info("y", 1, ["2*s7", 2])
    inner = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["z"], doc_string="secret")], "inner", [], [])
    node = onnx.helper.make_node("Neg", ["x"], ["y"], doc_string="secret", body=inner)
    weight = onnx.helper.make_tensor("w", 1, [1], [1.0])
    weight.doc_string = "secret"
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [tensor], [output], [weight], doc_string="secret")
    )
    model.doc_string = "secret"
    for message in (model, model.graph, node, model.graph.node[0], model.graph.input[0]):
        message.metadata_props.add(key="path", value="secret")
    cleaned = clean(model)
    assert b"secret" not in cleaned.SerializeToString()
    assert [dim.dim_param for dim in cleaned.graph.input[0].type.tensor_type.shape.dim] == ["batch", ""]
    assert cleaned.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "2*batch"
    assert b"secret" in model.SerializeToString()  # the one given is not changed


def test_operator_without_onnx_form_is_named(tmp_path: Path) -> None:
    class Exotic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.airy_ai(x)

    with pytest.raises(UsageError, match=r"cannot be exported to ONNX: .*airy") as caught:
        OnnxExporter().export(Exotic(), (torch.zeros(2, 3),), tmp_path / "net.onnx")
    assert caught.value.__cause__ is not None
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_one_file_are_refused(tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError):
        module = nn.Linear(1, 1)
        module.weight = nn.Parameter(torch.empty(2**29 + 1, 1, device="meta"))
    with pytest.raises(UsageError, match=r"2\.1 GB, one ONNX file holds at most"):
        OnnxExporter().export(module, (torch.zeros(1, 1),), tmp_path / "net.onnx")


def fixed_file(folder: Path, operator: str, outputs: list[int], **attributes: int) -> OnnxRunner:
    """One operator on a row of four and a table of ten."""
    tensor = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node(operator, ["x", "t"] if operator == "Gemm" else ["x"], ["y"], **attributes)
    inputs = [tensor("x", onnx.TensorProto.FLOAT, [1, 4])]
    if operator == "Gemm":
        inputs.append(tensor("t", onnx.TensorProto.FLOAT, [10, 4]))
    graph = onnx.helper.make_graph([node], "g", inputs, [tensor("y", onnx.TensorProto.FLOAT, outputs)])
    path = folder / f"{operator}.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return OnnxRunner(manifest.describe(path))


def test_what_has_no_batch_is_not_taken_apart(tmp_path: Path) -> None:
    run = fixed_file(tmp_path, "Gemm", [1, 10], transB=1)
    rows, table = np.random.default_rng(0).normal(size=(2, 12, 4)).astype(np.float32)
    rows, table = rows[:3], table[:10]
    np.testing.assert_allclose(run({"x": rows, "t": table})[0], rows @ table.T, rtol=1e-5)
    np.testing.assert_allclose(run({"x": rows[:1], "t": table})[0], rows[:1] @ table.T, rtol=1e-5)


def test_an_output_without_rows_is_refused_for_several(tmp_path: Path) -> None:
    run = fixed_file(tmp_path, "ReduceMean", [], keepdims=0)
    assert run({"x": np.full((1, 4), 2, np.float32)})[0] == 2
    with pytest.raises(ParityError, match=r"cannot run ReduceMean\.onnx \(a test\)"):
        run({"x": np.zeros((3, 4), np.float32)}, "a test")
