"""The agent as a real process: its protocol, its lock, what it leaves behind, and every end of a worker."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeprune.agent.bundle import write_agent
from tests.onnx_models import chain_of_matmuls

POLICY = {
    "runtime": "onnxruntime",
    "threads": 1,
    "warmup_runs": 3,
    "warmup_s": 0.05,
    "min_s": 0.05,
    "max_s": 2.0,
    "min_runs": 20,
    "max_runs": 1000,
    "ci_share": 0.1,
    "memory_workers": 0,
    "cores": [],
}


class Process:
    """An agent and what it says, line by line."""

    def __init__(self, file: Path, *arguments: str, python: str = sys.executable, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, python, "-B", str(file), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(b"")

    def say(self, **message: Any) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self, *kinds: str) -> dict[str, Any]:
        """The next frame of one of the kinds (of any, where none is named)."""
        while True:
            line = self.lines.get(timeout=60)
            assert line, "the agent has ended"
            if line.strip():
                frame: dict[str, Any] = json.loads(line)
                if not kinds or frame["type"] in kinds:
                    return frame

    def measure(self, model: Path, **changes: Any) -> None:
        request = {
            "model": str(model),
            "inputs": [{"name": "y0", "dtype": "float32", "shape": [1, 64]}],
            "seed": 0,
            "deadline_s": 60.0,
            "policy": {**POLICY, **{name: changes.pop(name) for name in list(changes) if name in POLICY}},
        }
        self.say(request="measure", id=7, **{**request, **changes})

    def worker(self) -> psutil.Process:
        """Its worker process, once there is one that measures."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for child in psutil.Process(self.process.pid).children():
                if child.cpu_times().user > 0.3:  # past its imports
                    return child
            time.sleep(0.02)
        raise AssertionError("no worker")

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stderr.close()


@pytest.fixture(scope="module")
def agent_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "device.lock"
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(path))
    return path


@pytest.fixture
def start(lock: Path, agent_file: Path) -> Iterator[Any]:
    started: list[Process] = []

    def start_one(*arguments: str, **options: Any) -> Process:
        started.append(Process(agent_file, *arguments, **options))
        return started[-1]

    yield start_one
    for process in started:
        process.end()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain_of_matmuls(tmp_path_factory.mktemp("models") / "small.onnx", width=64, layers=2).path


def endless(agent: Process, model: Path) -> psutil.Process:
    """A measurement that would take a minute; its worker."""
    agent.hear("hello")
    agent.measure(model, min_s=60.0, max_s=60.0, max_runs=10**9)
    return agent.worker()


def gone(process: psutil.Process) -> bool:
    try:
        process.wait(timeout=10)
    except psutil.TimeoutExpired:
        return False
    return True


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


# --- what is left behind


def test_end_of_input_leaves_nothing(start: Any, model: Path, tmp_path: Path, lock: Path) -> None:
    folder = tmp_path / "edgeprune-private"
    folder.mkdir()
    agent = start("--folder", str(folder))
    worker = endless(agent, model)
    assert lock.exists()
    agent.process.stdin.close()
    assert agent.process.wait(timeout=10) is not None
    assert gone(worker)
    assert not folder.exists()
    assert not lock.exists()


def test_bye_keeps_the_folder_to_its_owner(start: Any, tmp_path: Path, lock: Path) -> None:
    folder = tmp_path / "edgeprune-private"
    folder.mkdir()
    agent = start("--folder", str(folder))
    agent.hear("hello")
    agent.say(request="bye")
    assert agent.process.wait(timeout=10) == 0
    assert folder.exists()
    assert not lock.exists()


def test_foreign_folder_is_never_removed(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    agent = start("--folder", str(folder))
    agent.hear("hello")
    agent.end()
    assert folder.exists()


def test_killed_agent_takes_its_worker_along(start: Any, model: Path) -> None:
    agent = start()
    worker = endless(agent, model)
    agent.process.kill()
    assert gone(worker)


def test_silence_ends_the_agent(start: Any, lock: Path) -> None:
    agent = start("--idle-s", "3")
    agent.hear("hello")
    assert agent.process.wait(timeout=20) is not None
    assert not lock.exists()


def test_discarded_artifacts_are_removed_inside_the_folder_only(start: Any, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edgeprune-private"
    folder.mkdir()
    for path in (folder / "old.onnx", tmp_path / "precious.onnx"):
        path.write_bytes(b"x")
    agent = start("--folder", str(folder))
    agent.hear("hello")
    agent.measure(model, discard=[str(folder / "old.onnx"), str(tmp_path / "precious.onnx")])
    assert agent.hear("result")["outcome"] == "OK"
    assert not (folder / "old.onnx").exists()
    assert (tmp_path / "precious.onnx").exists()


# --- the lock


def test_second_agent_is_busy_and_names_the_owner(start: Any) -> None:
    first = start("--owner", "ada@lab")
    first.hear("hello")
    second = start("--owner", "eve@lab")
    busy = second.hear()
    assert busy["type"] == "busy"
    assert busy["holder"]["owner"] == "ada@lab"
    assert busy["holder"]["pid"] == first.process.pid
    assert second.process.wait(timeout=10) == 0


def test_waiting_agent_takes_over(start: Any, lock: Path) -> None:
    first = start("--owner", "ada@lab")
    first.hear("hello")
    second = start("--owner", "eve@lab", "--wait-s", "30")
    assert second.hear()["type"] == "waiting"
    first.process.kill()  # no goodbye: the kernel frees the lock
    assert second.hear("hello", "busy")["type"] == "hello"
    assert json.loads(lock.read_text())["owner"] == "eve@lab"


def test_only_one_of_many_gets_the_lock(start: Any) -> None:
    agents = [start("--owner", f"user{number}") for number in range(5)]
    kinds = sorted(agent.hear("hello", "busy")["type"] for agent in agents)
    assert kinds == ["busy"] * 4 + ["hello"]


def test_lock_is_no_way_to_write_elsewhere(start: Any, tmp_path: Path, lock: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    lock.symlink_to(precious)
    agent = start()
    assert agent.process.wait(timeout=10) != 0
    assert precious.read_text() == "precious"


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
