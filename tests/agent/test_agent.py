"""The agent as a real process: its protocol, and every end of a worker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.agent.agent_process import endless
from tests.onnx_models import chain_of_matmuls

# --- hello and requests


def test_hello_comes_first_with_machine_and_runtimes(start: Any) -> None:
    import onnxruntime

    hello = start().hear()
    assert hello["type"] == "hello"
    assert hello["edgeprune_agent"] == 1
    assert hello["machine"]["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert hello["machine"]["cpus"] == os.cpu_count()
    assert hello["machine"]["memory_bytes"] == psutil.virtual_memory().total
    assert hello["runtimes"]["onnxruntime"] == {"version": onnxruntime.__version__}


def interpreters() -> list[str]:
    """Every Python from 3.6 on that this machine has."""
    found = {shutil.which(f"python3.{minor}") for minor in range(6, 20)} - {None}
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found |= {str(path) for path in versions.glob("versions/3.*/bin/python")}
    return sorted({sys.executable, *(str(Path(path).resolve()) for path in found if path and "/shims/" not in path)})


@pytest.mark.parametrize("python", interpreters())
def test_speaks_from_every_interpreter(start: Any, python: str) -> None:
    agent = start(python=python)
    version = subprocess.run([python, "-V"], check=True, capture_output=True, text=True).stdout.split()[1]
    assert agent.hear("hello")["machine"]["python"] == version.rstrip("+")
    agent.say(request="probe", id=1)
    assert agent.hear("result")["conditions"]["memory_available_bytes"] > 0
    agent.measure(Path("/absent"))
    assert agent.hear("result")["outcome"] in {"NO_RUNTIME", "CRASHED"}  # the latter where it has a runtime


def test_interpreter_without_runtime_says_so(start: Any, model: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('wheel of another machine')")
    agent = start(prefix=("env", f"PYTHONPATH={tmp_path}"))
    missing = agent.hear("hello")["runtimes"]["onnxruntime"]
    assert missing["outcome"] == "NO_RUNTIME"
    assert "wheel of another machine" in missing["missing"]
    agent.measure(model)
    result = agent.hear("result")
    assert result["outcome"] == "NO_RUNTIME"
    assert "install it there" in result["message"]


def test_unknown_runtime_is_named(start: Any, model: Path) -> None:
    agent = start()
    agent.hear("hello")
    agent.measure(model, runtime="openvino")
    result = agent.hear("result")
    assert (result["outcome"], "'openvino'" in result["message"]) == ("NO_RUNTIME", True)


def test_measurement_keeps_every_sample(start: Any, model: Path) -> None:
    agent = start()
    agent.hear("hello")
    agent.measure(model, min_runs=1234, max_runs=1234, memory_workers=2)
    samples: list[int] = []
    while (frame := agent.hear("samples", "result"))["type"] == "samples":
        assert len(frame["ns"]) <= 500
        samples += frame["ns"]
    assert (frame["outcome"], frame["id"]) == ("OK", 7)
    assert frame["latency"]["runs"] == len(samples) == 1234
    assert frame["latency"]["warmup_runs"] >= 3
    assert min(samples) > 0
    assert len(frame["memory"]) == 2
    for worker in frame["memory"]:
        assert worker["peak"] >= worker["loaded"]["resident"] > 0
        assert worker["peak"] > worker["idle"]["peak"] / 2
    assert frame["conditions"]["before"]["memory_available_bytes"] > 0


def test_bad_requests_are_answered_and_survived(start: Any, model: Path) -> None:
    agent = start()
    agent.hear("hello")
    agent.write(b"\xff not json\n[1]\n{}\n")
    assert [agent.hear()["type"] for _ in range(3)] == ["error"] * 3
    agent.say(request="reformat", id=1)
    assert "unknown request 'reformat'" in agent.hear("error")["message"]
    agent.say(request="measure", id=2)
    assert "deadline_s" in agent.hear("error")["message"]
    agent.say(request="ping")
    agent.say(request="probe", id=3)
    probe = agent.hear()
    assert (probe["type"], probe["id"]) == ("result", 3)
    assert len(probe["conditions"]["load"]) == 3


def test_endless_line_ends_the_agent(start: Any) -> None:
    agent = start()
    agent.hear("hello")
    with pytest.raises(BrokenPipeError):
        agent.write(b"x" * (8 << 20))
    assert agent.process.wait(timeout=10) is not None


# --- ends of a worker


def test_broken_model_is_a_crash_with_its_reason(start: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    agent = start()
    agent.hear("hello")
    agent.measure(broken)
    result = agent.hear("result")
    assert result["outcome"] == "CRASHED"
    assert "broken.onnx" in result["message"]


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV")])
def test_killed_worker_is_a_crash_and_the_agent_goes_on(start: Any, model: Path, number: int, name: str) -> None:
    agent = start()
    endless(agent, model).send_signal(number)
    result = agent.hear("result")
    assert result["outcome"] == "CRASHED"
    assert name in result["message"]
    agent.measure(model)
    assert agent.hear("result")["outcome"] == "OK"


def test_deadline_is_a_timeout(start: Any, model: Path) -> None:
    agent = start()
    agent.hear("hello")
    started = time.monotonic()
    agent.measure(model, min_s=60.0, max_s=60.0, max_runs=10**9, deadline_s=1.5)
    result = agent.hear("result")
    assert result["outcome"] == "TIMEOUT"
    assert "latency pass" in result["message"]
    assert time.monotonic() - started < 10
    assert psutil.Process(agent.process.pid).children() == []


def test_address_space_limit_is_out_of_memory(start: Any, tmp_path: Path) -> None:
    """An allocation that fails in the runtime, as on a system that does not overcommit."""
    big = chain_of_matmuls(tmp_path / "big.onnx", width=4096, layers=9).path  # 604 MB of weights
    limit = 600 << 20  # enough for the runtime with any number of threads, and too little for the weights
    agent = start(prefix=("prlimit", f"--as={limit}"))
    agent.hear("hello")
    agent.measure(big, inputs=[{"name": "y0", "dtype": "float32", "shape": [1, 4096]}])
    assert agent.hear("result")["outcome"] == "OOM"


def test_kernel_kill_is_out_of_memory(start: Any, tmp_path: Path) -> None:
    """A real kill by the kernel in a memory control group; the agent in the same group survives it."""
    parent = Path("/sys/fs/cgroup/memory")
    if not os.access(parent / "cgroup.procs", os.W_OK):
        reason = "no writable cgroup v1 memory controller"
        pytest.skip(reason)
    group = parent / f"edgeprune-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(200 << 20))
        big = chain_of_matmuls(tmp_path / "big.onnx", width=4096, layers=4).path
        enter = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
        agent = start(prefix=enter)
        agent.hear("hello")
        agent.measure(big, inputs=[{"name": "y0", "dtype": "float32", "shape": [1, 4096]}])
        result = agent.hear("result")
        assert (result["outcome"], result["message"]) == ("OOM", "the kernel killed the worker for want of memory")
        agent.end()
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)


# --- reading the device


def test_throttled_measurement_has_no_figures(
    start: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "vcgencmd"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho throttled=0x50005\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    agent = start()
    agent.hear("hello")
    agent.measure(model)
    result = agent.hear("samples", "result")
    assert result["outcome"] == "THROTTLED"
    assert result["conditions"]["after"]["throttled"] == 0x50005
    assert "latency" not in result
