"""TensorRT through the agent as a real process, with a program that stands in for trtexec."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from edgeprune.export.stored import stored_zip
from tests.agent.agent_process import POLICY
from tests.agent.stand_in_trtexec import calls, install
from tests.agent.test_runtimes import read, send
from tests.onnx_models import chain_of_matmuls


@pytest.fixture
def trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def engine_source(folder: Path, *arguments: str) -> tuple[Path, np.ndarray]:
    """A .tensorrt file of two products, and the matrix that they come to."""
    made = chain_of_matmuls(folder / "chain.onnx", width=16, layers=2).path
    model = onnx.load(made)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.ir_version, model.opset_import[0].version = 7, 13
    recipe = json.dumps({"schema": "edgeprune.tensorrt/1", "arguments": list(arguments)}).encode()
    path = folder / "chain.tensorrt"
    path.write_bytes(stored_zip({"model.onnx": model.SerializeToString(), "build.json": recipe}))
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return path, weights[0] @ weights[1]


VALUES = np.random.default_rng(1).standard_normal((1, 16)).astype(np.float32)
TENSORRT = {**POLICY, "memory_workers": 1, "runtime": "tensorrt", "warmup_s": 0.05, "min_s": 0.5, "deadline_s": 60.0}


def measure(agent: Any, model: Path) -> dict[str, Any]:
    """The result, with the samples in it."""
    inputs = [{"name": "y0", "dtype": "float32", "shape": [1, 16]}]
    agent.say(request="measure", id=7, model=str(model), inputs=inputs, seed=0, deadline_s=60.0, policy=TENSORRT)
    samples: list[int] = []
    while (frame := agent.hear("samples", "result"))["type"] == "samples":
        samples += frame["ns"]
    return {**frame, "samples": samples}


def test_hello_tells_its_version(trtexec: Path, start: Any) -> None:
    assert start().hear("hello")["runtimes"]["tensorrt"] == {"version": "8.5.2"}


def test_without_trtexec_the_way_to_it_is_told(start: Any, tmp_path: Path) -> None:
    agent = start()
    assert "trtexec is not on the PATH" in agent.hear("hello")["runtimes"]["tensorrt"]["missing"]
    model, _ = engine_source(tmp_path)
    send(agent, model, tmp_path, VALUES, policy={"runtime": "tensorrt", "threads": 1})
    result = agent.hear("result")
    assert (result["outcome"], "it comes with JetPack" in result["message"]) == ("NO_RUNTIME", True)


def test_outputs_are_those_of_the_engine(trtexec: Path, start: Any, tmp_path: Path) -> None:
    model, product = engine_source(tmp_path, "--noTF32")
    agent = start()
    agent.hear("hello")
    send(agent, model, tmp_path, VALUES, policy={"runtime": "tensorrt", "threads": 1})
    result = agent.hear("result")
    assert (result["outcome"], result["runtime"], result["version"]) == ("OK", "tensorrt", "8.5.2"), result
    (output,) = result["outputs"]
    wanted = VALUES @ product
    assert (output["name"], output["shape"]) == ("y2", [1, 16])
    assert np.abs(read(output) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_latency_is_trtexec_s_own_and_the_engine_is_built_once(trtexec: Path, start: Any, tmp_path: Path) -> None:
    model, _ = engine_source(tmp_path, "--noTF32", "--useDLACore=0")
    agent = start()
    agent.hear("hello")
    result = measure(agent, model)
    assert result["outcome"] == "OK", result
    assert (result["latency"]["runtime"], result["latency"]["version"]) == ("tensorrt", "8.5.2")
    assert result["latency"]["runs"] == len(result["samples"]) >= POLICY["min_runs"]
    assert 1e3 < statistics.median(result["samples"]) < 1e8  # ns of two small products
    assert result["memory"] == []
    assert "memory or energy is not measured" in result["missing"]["peak_memory"]
    built, timed, *more = calls(trtexec)
    assert built[1].endswith(".engine.part")  # renamed once it is whole
    assert [*built[:1], *built[2:]] == [
        built[0],
        *("--iterations=1", "--duration=0", "--warmUp=0", "--noTF32", "--useDLACore=0"),
    ]
    (engine,) = tmp_path.glob("*.engine")
    assert {call[0] for call in (timed, *more)} == {f"--loadEngine={engine}"}
    assert measure(agent, model)["outcome"] == "OK"
    assert len([call for call in calls(trtexec) if call[0].startswith("--onnx=")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["bin"]


def test_another_trtexec_builds_another_engine(trtexec: Path, start: Any, tmp_path: Path) -> None:
    model, _ = engine_source(tmp_path)
    agent = start()
    agent.hear("hello")
    assert measure(agent, model)["outcome"] == "OK"
    trtexec.write_text(trtexec.read_text().replace('VERSION = "8502"', 'VERSION = "100300"'))
    assert measure(agent, model)["latency"]["version"] == "10.3.0"
    assert len(list(tmp_path.glob("*.engine"))) == 2


def test_comparison_in_turn(trtexec: Path, start: Any, tmp_path: Path) -> None:
    model, _ = engine_source(tmp_path)
    agent = start()
    agent.hear("hello")
    inputs = [{"name": "y0", "dtype": "float32", "shape": [1, 16]}]
    arms = [{"model": str(model), "inputs": inputs}] * 2
    policy = {**TENSORRT, "compare_s": 0.1}
    agent.say(request="compare", id=8, arms=arms, seed=0, workers=1, deadline_s=60.0, policy=policy)
    result = agent.hear("result")
    assert result["outcome"] == "OK", result
    assert result["workers"][0]["versions"] == ["tensorrt 8.5.2"] * 2
    assert all(one > 0 and other > 0 for one, other in result["workers"][0]["pairs"])


def test_errors_of_trtexec_are_told(trtexec: Path, start: Any, tmp_path: Path) -> None:
    model = tmp_path / "broken.tensorrt"
    model.write_bytes(stored_zip({"model.onnx": b"no model", "build.json": b'{"arguments": []}'}))
    agent = start()
    agent.hear("hello")
    result = measure(agent, model)
    assert result["outcome"] == "CRASHED"
    assert "trtexec failed (1): " in result["message"]
    assert "Failed to parse onnx file" in result["message"]


@pytest.mark.parametrize("argument", ["--plugins=/tmp/evil.so", "--saveEngine=/etc/passwd", "--fp16 --plugins=x", "-h"])
def test_arguments_that_name_files_or_libraries_are_refused(
    trtexec: Path,
    start: Any,
    tmp_path: Path,
    argument: str,
) -> None:
    model, _ = engine_source(tmp_path, argument)
    agent = start()
    agent.hear("hello")
    result = measure(agent, model)
    assert result["outcome"] == "CRASHED"
    assert f"trtexec is not called with {argument}" in result["message"]
    assert calls(trtexec) == []


def test_a_build_that_takes_too_long_leaves_no_process(trtexec: Path, start: Any, tmp_path: Path) -> None:
    """The worker is killed at its deadline, and what it started goes with it."""
    agent = start()
    agent.hear("hello")
    mark = tmp_path / "pid"
    trtexec.write_text(f"#!/bin/sh\necho $$ >{mark}\nexec sleep 100\n")
    model, _ = engine_source(tmp_path)
    inputs = [{"name": "y0", "dtype": "float32", "shape": [1, 16]}]
    agent.say(request="measure", id=7, model=str(model), inputs=inputs, seed=0, deadline_s=15.0, policy=TENSORRT)
    result = agent.hear("result")
    assert result["outcome"] == "TIMEOUT"
    for _ in range(100):
        if not psutil.pid_exists(int(mark.read_text())):
            break
        time.sleep(0.1)
    assert not psutil.pid_exists(int(mark.read_text()))
    assert not list(tmp_path.glob("*.engine"))
