"""One small network as a file for each runtime, and an interpreter that has the runtime."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.onnx_models import chain_of_matmuls

HERE = Path(__file__).parent
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "ncnn": "ncnn",
    "executorch": "executorch",
}
# No wheels for every Python, or gigabytes: tested where they are, and not missed where they are not.
_RARE = ("tflite-runtime", "executorch")
SUFFIXES = {"onnxruntime": "onnx", "ai-edge-litert": "tflite", "tflite-runtime": "tflite", "ncnn": "ncnn"}


def interpreters() -> list[str]:
    """This one and those of EDGEPRUNE_TEST_RUNTIMES (paths with colons between)."""
    return [sys.executable, *(path for path in os.environ.get("EDGEPRUNE_TEST_RUNTIMES", "").split(":") if path)]


@cache
def interpreter(name: str) -> str | None:
    """The first interpreter that has the runtime."""
    program = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({PACKAGES[name]!r}) is None)"
    return next((path for path in interpreters() if subprocess.call([path, "-c", program]) == 0), None)


def interpreter_of(name: str) -> str:
    """The same; skips the test where there is none."""
    python = interpreter(name)
    if python is None:
        pytest.skip(f"{name} is in no interpreter of EDGEPRUNE_TEST_RUNTIMES (scripts/test makes one)")
    return python


def names_here() -> list[str]:
    """The runtimes to test here."""
    return [name for name in PACKAGES if name not in _RARE or interpreter(name)]


def weights_of(model: Path) -> NDArray[np.float32]:
    """(layers, outputs, inputs) of a chain of products."""
    return np.stack([numpy_helper.to_array(tensor).T for tensor in onnx.load(model).graph.initializer])


def chain(name: str, folder: Path, *, width: int = 16, layers: int = 2) -> tuple[Path, NDArray[np.float32]]:
    """The chain of products as a file that the runtime takes, and its weights; skips where it cannot be made."""
    made = chain_of_matmuls(folder / "chain.onnx", width=width, layers=layers).path
    weights = weights_of(made)
    if name == "onnxruntime":
        model = onnx.load(made)
        model.ir_version, model.opset_import[0].version = 7, 13  # the last ONNX Runtime for Python 3.6 knows them
        onnx.save(model, made)
        return made, weights
    if name == "executorch":  # exporting needs much more than running: the file is kept, see make_pte.py
        if (width, layers) != (16, 2):
            pytest.skip("the kept file of ExecuTorch is small")
        return HERE / "models" / "chain.pte", weights
    path = folder / f"chain.{SUFFIXES[name]}"
    if name == "ncnn":
        write_ncnn(path, weights)
        return path, weights
    np.save(folder / "weights.npy", weights)
    maker = [interpreter_of("ai-edge-litert"), str(HERE / "make_tflite.py"), str(folder / "weights.npy"), str(path)]
    subprocess.run(maker, check=True)
    return path, weights


def write_ncnn(path: Path, weights: NDArray[np.float32]) -> None:
    """ncnn's text format (magic, counts of layers and blobs, one line a layer) and its weights, each after a flag 0."""
    layers, width, _ = weights.shape
    lines = ["7767517", f"{layers + 1} {layers + 1}", "Input in0 0 1 y0"]
    lines += [f"InnerProduct fc{n} 1 1 y{n} y{n + 1} 0={width} 1=0 2={width * width}" for n in range(layers)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.ncnn.param", "\n".join(lines) + "\n")
        archive.writestr("model.ncnn.bin", b"".join(bytes(4) + weight.tobytes() for weight in weights))
