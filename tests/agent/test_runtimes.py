"""Every runtime through the agent as a real process: what it computes, and what is said where it is not there."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.agent.agent_process import POLICY
from tests.agent.runtime_models import chain, interpreter_of, interpreters, names_here
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
def ready(start: Any) -> Any:
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


def test_sent_inputs_are_removed_from_the_agents_folder(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "edgeprune-private"
    folder.mkdir()
    model = chain_of_matmuls(tmp_path / "chain.onnx", width=8, layers=1).path
    agent = start("--folder", str(folder))
    agent.hear("hello")
    send(agent, model, folder, np.ones((1, 8), np.float32))
    assert agent.hear("result")["outcome"] == "OK"
    assert list(folder.iterdir()) == []


# --- every runtime

TOLERANCE = {"ncnn": 2e-3}  # it computes with 16-bit weights where the processor can convert them


@pytest.mark.parametrize("name", names_here())
def test_every_runtime_computes_the_model(start: Any, tmp_path: Path, name: str) -> None:
    python = interpreter_of(name)
    model, weights = chain(name, tmp_path)
    agent = start(python=python)
    said = agent.hear("hello")["runtimes"][name]
    assert said.get("version", "")[0].isdigit(), said
    values = np.random.default_rng(1).standard_normal((1, 16)).astype(np.float32)
    send(agent, model, tmp_path, values, policy={"runtime": name, "threads": 1})
    result = agent.hear("result")
    assert (result["outcome"], result.get("runtime"), result.get("version")) == ("OK", name, said["version"]), result
    (output,) = result["outputs"]
    wanted = values @ weights[0].T @ weights[1].T
    assert output["shape"] == [1, 16]
    assert np.abs(read(output) - wanted).max() <= TOLERANCE.get(name, 1e-5) * np.abs(wanted).max()


@pytest.mark.parametrize("python", interpreters())
def test_every_interpreter_measures_with_what_it_has(start: Any, tmp_path: Path, python: str) -> None:
    agent = start(python=python)
    there = [name for name, about in agent.hear("hello")["runtimes"].items() if "version" in about]
    assert there, "an interpreter of EDGEPRUNE_TEST_RUNTIMES has no runtime"
    values = np.random.default_rng(1).standard_normal((1, 16)).astype(np.float32)
    for name in there:
        folder = tmp_path / name
        folder.mkdir()
        model, weights = chain(name, folder)
        send(agent, model, folder, values, policy={"runtime": name, "threads": 1})
        result = agent.hear("result")
        wanted = values @ weights[0].T @ weights[1].T
        assert result["outcome"] == "OK", result
        assert np.abs(read(result["outputs"][0]) - wanted).max() <= TOLERANCE.get(name, 1e-5) * np.abs(wanted).max()
        inputs = [{"name": "y0", "dtype": "float32", "shape": [1, 16]}]
        policy = {**POLICY, "memory_workers": 1, "runtime": name}
        agent.say(request="measure", id=7, model=str(model), inputs=inputs, seed=0, deadline_s=60.0, policy=policy)
        result = agent.hear("result")
        assert result["outcome"] == "OK", result
        assert (result["latency"]["runtime"], len(result["memory"])) == (name, 1)
        assert result["memory"][0]["sampled"]["resident"] > result["memory"][0]["base"]["resident"]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", names_here())
def test_every_runtime_uses_the_asked_threads(agent_file: Path, tmp_path: Path, name: str, threads: int) -> None:
    """The main thread and the asked number of others less one; what the imports start does not count."""
    model, _ = chain(name, tmp_path)
    inputs = [{"name": "y0", "dtype": "float32", "shape": [1, 16]}]
    task = {"runtime": name, "model": str(model), "threads": threads, "seed": 0, "inputs": inputs}
    program = f"""
import json, os, sys
sys.path.insert(0, {str(agent_file)!r})
from edgeprune_agent.runtimes import load_runtime
task = json.loads({json.dumps(task)!r})
runtime = load_runtime(task)
before = len(os.listdir("/proc/self/task"))
run = runtime.load(task)
run()
print(len(os.listdir("/proc/self/task")) - before)
"""
    said = subprocess.run([interpreter_of(name), "-c", program], check=True, capture_output=True, text=True).stdout
    assert int(said.split()[-1]) == threads - 1


def test_model_of_another_format_runs_in_whatever_takes_it(start: Any, tmp_path: Path) -> None:
    python = interpreter_of("ncnn")
    model, _ = chain("ncnn", tmp_path)
    agent = start(python=python)
    agent.hear("hello")
    send(agent, model, tmp_path, np.ones((1, 16), np.float32))  # the policy says onnxruntime
    assert agent.hear("result")["runtime"] == "ncnn"


def test_runtime_that_another_numpy_breaks_says_so(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tflite-runtime imports beside NumPy 2, and fails in the middle of things."""
    (tmp_path / "tflite_runtime").mkdir()
    for file in ("__init__.py", "interpreter.py"):
        (tmp_path / "tflite_runtime" / file).write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    agent = start()
    told = agent.hear("hello")["runtimes"]["tflite-runtime"]
    assert (told["outcome"], "it needs NumPy 1; pip install 'numpy<2'" in told["missing"]) == ("NO_RUNTIME", True)
    (tmp_path / "model.tflite").write_bytes(b"")
    send(agent, tmp_path / "model.tflite", tmp_path, np.ones((1, 1), np.float32))
    assert "it needs NumPy 1" in agent.hear("result")["message"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.tflite", "ai-edge-litert or tflite-runtime does not run in {python} (not installed): install it there"),
        ("model.engine", "no runtime here takes '.engine' files; known are .ncnn, .onnx, .pte, .tensorrt, .tflite"),
    ],
)
def test_format_without_a_runtime_names_what_would_do(ready: Any, tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / file).write_bytes(b"")
    send(ready, tmp_path / file, tmp_path, np.ones((1, 1), np.float32))
    result = ready.hear("result")
    assert result["outcome"] == "NO_RUNTIME"
    assert message.format(python=sys.executable) in result["message"]
