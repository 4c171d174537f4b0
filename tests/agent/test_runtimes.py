"""Every runtime through the agent as a real process: what it computes, and what is said where it is not there."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.agent.test_agent import agent_file, lock, start  # noqa: F401  # fixtures
from tests.onnx_models import chain_of_matmuls


def send(agent: Any, model: Path, folder: Path, *arrays: np.ndarray, **changes: Any) -> None:
    """A request for the model's outputs."""
    data = folder / "inputs.bin"
    data.write_bytes(b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays))
    request = {
        "model": str(model),
        "data": str(data),
        "inputs": [
            {"name": f"y{n}", "dtype": array.dtype.name, "shape": list(array.shape)} for n, array in enumerate(arrays)
        ],
        "deadline_s": 60.0,
        "policy": {"runtime": "onnxruntime", "threads": 1},
    }
    agent.say(request="outputs", id=3, **{**request, **changes})


def read(output: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(output["data"])
    assert hashlib.sha256(data).hexdigest() == output["sha256"]
    return np.frombuffer(data, output["dtype"]).reshape(output["shape"])


@pytest.fixture
def ready(start: Any) -> Any:  # noqa: F811
    agent = start()
    agent.hear("hello")
    return agent


def test_outputs_are_what_the_runtime_computes_here(ready: Any, tmp_path: Path) -> None:
    model = chain_of_matmuls(tmp_path / "chain.onnx", width=32, layers=2).path
    values = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
    send(ready, model, tmp_path, values)
    result = ready.hear("result")
    assert (result["outcome"], result["id"], result["runtime"]) == ("OK", 3, "onnxruntime")
    assert result["version"] == onnxruntime.__version__
    (output,) = result["outputs"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"y0": values})
    assert (output["name"], output["dtype"], output["shape"]) == ("y2", "float32", [3, 32])
    assert np.array_equal(read(output), wanted)


def test_inputs_of_another_size_are_refused(ready: Any, tmp_path: Path) -> None:
    model = chain_of_matmuls(tmp_path / "chain.onnx", width=32, layers=1).path
    short = np.zeros((1, 31), np.float32)
    send(ready, model, tmp_path, short, inputs=[{"name": "y0", "dtype": "float32", "shape": [1, 32]}])
    result = ready.hear("result")
    assert result["outcome"] == "CRASHED"
    assert "inputs.bin holds 124 bytes where the inputs are 128 bytes" in result["message"]


def test_large_outputs_are_told_by_their_hash(ready: Any, tmp_path: Path) -> None:
    model = chain_of_matmuls(tmp_path / "chain.onnx", width=32, layers=1).path
    values = np.ones((5000, 32), np.float32)  # 640 000 bytes
    send(ready, model, tmp_path, values)
    (output,) = ready.hear("result")["outputs"]
    assert output["data"] is None
    assert (len(output["sha256"]), output["shape"]) == (64, [5000, 32])


def test_sent_inputs_are_removed_from_the_agents_folder(start: Any, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "edgeprune-private"
    folder.mkdir()
    model = chain_of_matmuls(tmp_path / "chain.onnx", width=8, layers=1).path
    agent = start("--folder", str(folder))
    agent.hear("hello")
    send(agent, model, folder, np.ones((1, 8), np.float32))
    assert agent.hear("result")["outcome"] == "OK"
    assert list(folder.iterdir()) == []
