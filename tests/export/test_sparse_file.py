"""Packed sparse models: bit for bit again, smaller than what xz alone makes of them, and damage is found."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.export import sparse_loader
from edgeprune.export.sparse_file import pack, packed
from edgeprune.records.artifact import Artifact


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(1, 40), st.floats(0, 1)), max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_the_same_bytes_come_back(tensors: list[tuple[int, int, float]], seed: int) -> None:
    random = np.random.default_rng(seed)
    data, places = random.bytes(7), []
    for word, count, share in tensors:
        words = random.integers(0, 256, (count, word), dtype=np.uint8) * (random.random((count, 1)) > share)
        places.append((len(data), count * word, word))
        data += words.astype(np.uint8).tobytes() + random.bytes(5)
    assert sparse_loader.load(packed(data, places)) == data


def model(tmp_path: Path, zeros: float) -> Artifact:
    import onnx
    from onnx import helper, numpy_helper

    from edgeprune.export import manifest

    random = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(3):
        weight = random.normal(size=(128, 128)).astype(np.float32)
        weight[random.random((128, 128)) < zeros] = 0
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"]))
    value = helper.make_tensor_value_info
    first, last = (value(name, onnx.TensorProto.FLOAT, [1, 128]) for name in ("x0", "x3"))
    graph = helper.make_graph(nodes, "sparse", [first], [last], weights)
    path = tmp_path / "net.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=9).SerializeToString())
    return manifest.describe(path)


def test_a_sparse_model_is_smaller_than_xz_makes_it(tmp_path: Path) -> None:
    artifact = model(tmp_path, 0.8)
    path, size = pack(artifact)
    data = artifact.path.read_bytes()
    assert path.name == "net.onnx.sparse"
    assert size == path.stat().st_size < 0.95 * len(lzma.compress(data)) < 0.3 * len(data)
    # Packed by its bitmap and the bytes of what is not zero, it cannot be much smaller than these.
    assert size > 0.2 * 3 * 128 * 128 * 3


def test_the_loader_runs_by_itself(tmp_path: Path) -> None:
    artifact = model(tmp_path, 0.8)
    path, _ = pack(artifact)
    alone = tmp_path / "alone"
    alone.mkdir()
    loader = Path(shutil.copy(sparse_loader.__file__, alone))
    command = [sys.executable, "-I", "-S", str(loader), str(path)]  # no packages, nothing of edgeprune
    subprocess.run([*command, str(alone / "net.onnx")], check=True)
    assert (alone / "net.onnx").read_bytes() == artifact.path.read_bytes()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 2


def test_a_dense_model_is_stored_as_it_is(tmp_path: Path) -> None:
    artifact = model(tmp_path, 0.0)
    path, size = pack(artifact)
    assert sparse_loader.load(path.read_bytes()) == artifact.path.read_bytes()
    assert size < 1.01 * artifact.size_bytes


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "too short"),
        (lambda data: b"X" + data[1:], "version 1"),
        (lambda data: data[:8] + b"\x02" + data[9:], "version 1"),
        (lambda data: data[:-20], "damaged"),
        (lambda data: data[:20] + bytes(32) + data[52:], "not what was stored"),
        (lambda data: data[:12] + bytes(8) + data[20:], "longer than the model"),
        (lambda data: data[:52] + lzma.compress(b"\x04"), "cut off"),
        (lambda data: data[:52] + lzma.compress(b"\x04\x09" + bytes(7) + b"\xff\xff"), "does not fit"),
        (lambda data: data[:52] + lzma.compress(b"\x04\x01" + bytes(7) + b"\x01\x00"), "does not fit"),
    ],
)
def test_damage_is_found(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    data = packed(bytes(range(256)) * 4, [(0, 512, 4)])
    with pytest.raises(ValueError, match=message):
        sparse_loader.load(damage(data))
