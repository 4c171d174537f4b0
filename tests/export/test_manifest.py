from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.records.artifact import Artifact, TensorSpec

INPUTS = (TensorSpec("x", "float32", ("batch", 3)),)
OUTPUTS = (TensorSpec("y", "int64", (1, 2)),)


def written(folder: Path) -> Artifact:
    path = folder / "net.onnx"
    path.write_bytes(b"weights")
    artifact = manifest.artifact(
        path, b"weights", format="onnx", inputs=INPUTS, outputs=OUTPUTS, provenance={"opset": 20, "parity_error": 1e-7}
    )
    assert manifest.write(artifact) == folder / "net.onnx.manifest.json"
    return artifact


def foreign(path: Path) -> None:
    """An old-style file that lists its weight among the inputs and has an unnamed dimension."""
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["image", "w"], ["sum"])],
        "g",
        [info("image", onnx.TensorProto.FLOAT16, [None, 3]), info("w", onnx.TensorProto.FLOAT16, [3])],
        [info("sum", onnx.TensorProto.FLOAT16, ["N", 3])],
        [onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT16, [3], [1.0, 2.0, 3.0])],
    )
    onnx.save(onnx.helper.make_model(graph, producer_name="elsewhere", producer_version="7"), path)


def test_round_trip(tmp_path: Path) -> None:
    artifact = written(tmp_path)
    assert manifest.read(artifact.path) == artifact


def test_content(tmp_path: Path) -> None:
    path = manifest.manifest_path(written(tmp_path).path)
    data = json.loads(path.read_text())
    assert data == {
        "schema": "edgeprune.artifact/1",
        "file": "net.onnx",
        "format": "onnx",
        "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
        "size_bytes": 7,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}],
        "outputs": [{"name": "y", "dtype": "int64", "shape": [1, 2]}],
        "provenance": {"opset": 20, "parity_error": 1e-07},
    }
    assert str(tmp_path) not in path.read_text()


def test_moves_with_its_artifact(tmp_path: Path) -> None:
    artifact = written(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for path in (artifact.path, manifest.manifest_path(artifact.path)):
        path.rename(tmp_path / "elsewhere" / path.name)
    assert manifest.read(tmp_path / "elsewhere" / "net.onnx").sha256 == artifact.sha256


@pytest.mark.parametrize("content", [b"weightz", b"weights and more"])
def test_changed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    artifact = written(tmp_path)
    artifact.path.write_bytes(content)
    with pytest.raises(UsageError, match="is not the file that its manifest describes") as caught:
        manifest.read(artifact.path)
    assert "net.onnx.manifest.json" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "malformed"),
        ("[]", "not a manifest of schema"),
        ('{"schema": "edgeprune.artifact/9"}', "not a manifest of schema edgeprune.artifact/1"),
        ('{"schema": "edgeprune.artifact/1"}', "malformed: KeyError"),
        ('{"schema": "edgeprune.artifact/1", "format": "onnx", "sha256": "0", "size_bytes": "many"}', "malformed"),
    ],
)
def test_malformed_manifest(tmp_path: Path, text: str, message: str) -> None:
    artifact = written(tmp_path)
    manifest.manifest_path(artifact.path).write_text(text)
    with pytest.raises(UsageError, match=message):
        manifest.read(artifact.path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*net\.onnx"):
        manifest.read(tmp_path / "net.onnx")


def test_foreign_onnx_describes_itself(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    foreign(path)
    artifact = manifest.read(path)
    assert artifact.inputs == (TensorSpec("image", "float16", ("dim_0", 3)),)
    assert artifact.outputs == (TensorSpec("sum", "float16", ("N", 3)),)
    assert artifact.size_bytes == path.stat().st_size
    assert artifact.provenance == {"producer": "elsewhere 7"}


@pytest.mark.parametrize("content", [b"", b"this is no protobuf message", b"\x08\x07"])
def test_file_that_only_calls_itself_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fake.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not an ONNX file"):
        manifest.read(path)


def test_foreign_file_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"has no manifest net\.tflite\.manifest\.json"):
        manifest.read(tmp_path / "net.tflite")


def test_reading_a_manifest_loads_neither_torch_nor_onnx(tmp_path: Path) -> None:
    artifact = written(tmp_path)
    program = (
        "import sys; from pathlib import Path; from edgeprune.export import manifest\n"
        "manifest.read(Path(sys.argv[1])); print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, artifact.path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
