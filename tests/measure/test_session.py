"""Sessions with real devices (this machine, a real sshd), real ONNX Runtime, and every way to fail."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from edgeprune.agent.bundle import agent_sha256
from edgeprune.cli.progress import PlainProgress
from edgeprune.errors import StorageError, TargetError
from edgeprune.measure.session import Session
from edgeprune.measure.waiting import waiting
from edgeprune.pipeline.device import probe
from edgeprune.pipeline.measure import measure
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.figures import figures_of
from edgeprune.records.measurement import Outcome
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy, PowerSensor
from edgeprune.report.measured_on import of_provenance
from edgeprune.targets.base import Channel, Target
from edgeprune.targets.local import LocalTarget
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd, sshd_missing
from tests.onnx_models import chain_of_matmuls

QUICK = MeasurementPolicy(warmup_s=0.1, min_s=0.1, max_s=2.0, min_runs=150, ci_share=0.05, memory_workers=1)
LONG = dataclasses.replace(QUICK, min_s=60.0, max_s=60.0, max_runs=10**9)
BOARD = DeviceProfile(name="bench", measurement=QUICK)


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return chain_of_matmuls(tmp_path_factory.mktemp("models") / "small.onnx", width=64, layers=2)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """40 MiB of weights; about 3 ms a run."""
    return chain_of_matmuls(tmp_path_factory.mktemp("models") / "large.onnx", width=1024, layers=10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    if missing := sshd_missing():
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with Sshd({"EDGEPRUNE_LOCK": str(tmp_path / "remote-lock")}) as running:
        yield running


def by_hand(artifact: Artifact, runs: int = 200) -> float:
    """Median milliseconds of a plain loop."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    feed = {"y0": np.random.default_rng(0).standard_normal((1, 1024)).astype(np.float32)}
    times = []
    for _ in range(runs + 20):
        start = time.perf_counter()
        session.run(None, feed)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[20:])


def children() -> set[int]:
    """Those that run: a converter of another test may have ended meanwhile, which its next use notices."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if child.status() != psutil.STATUS_ZOMBIE}


def test_latency_and_memory_agree_with_the_truth(large: Artifact) -> None:
    before = children()
    hand = by_hand(large)
    with Session(LocalTarget(), BOARD, policy=dataclasses.replace(QUICK, memory_workers=3)) as session:
        found = session.measure(large)
        folder = Path(session.target.folder)
    assert found.outcome is Outcome.OK
    assert found.latency is not None
    assert found.latency.samples == len(found.latency.raw_ms) >= 150
    assert found.latency.warmup_runs >= 3
    assert found.latency.percentile_ms["p50"] == statistics.median(found.latency.raw_ms)
    assert 0.5 * hand < found.latency.percentile_ms["p50"] < 2 * hand
    assert set(found.latency.percentile_ms) >= {"p50", "p90", "p95"}
    assert found.memory is not None
    weights = 10 * 1024 * 1024 * 4
    assert weights <= found.memory.model_peak_bytes <= 4 * weights
    assert found.memory.process_peak_bytes >= found.memory.idle_bytes + weights
    assert found.memory.inference_peak_bytes is not None
    assert found.memory.inference_peak_bytes < weights  # the weights came with the load
    assert found.memory.noise_bytes < weights / 2
    assert found.memory.workers == len(found.conditions["memory_workers"]) == 3
    assert not folder.exists()
    assert children() == before


def test_small_model_needs_little_memory(small: Artifact, large: Artifact) -> None:
    with Session(LocalTarget(), BOARD) as session:
        little, much = session.measure(small).memory, session.measure(large).memory
    assert little is not None
    assert much is not None
    assert little.model_peak_bytes + (30 << 20) < much.model_peak_bytes


def test_provenance_says_where_it_comes_from(small: Artifact) -> None:
    import onnxruntime

    found = measure(small, profile=BOARD)
    assert found.provenance is not None
    assert (found.provenance.target, found.provenance.profile) == ("local", "bench")
    assert (found.provenance.runtime, found.provenance.runtime_version) == ("onnxruntime", onnxruntime.__version__)
    assert (found.provenance.threads, found.provenance.clock) == (1, "CLOCK_MONOTONIC_RAW")
    assert found.provenance.machine["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(found.provenance.agent_sha256) == 64
    assert found.provenance.started_at.endswith("+00:00")
    assert found.artifact_sha256 == small.sha256


def test_the_cores_that_were_used_are_in_the_record(small: Artifact) -> None:
    core = max(os.sched_getaffinity(0))
    with Session(LocalTarget(), BOARD, policy=dataclasses.replace(QUICK, cores=(core,))) as session:
        found = session.measure(small)
    assert found.provenance is not None
    assert found.provenance.cores == (core,)
    assert f"1 thread on core {core}, " in of_provenance(found.provenance)
    with Session(LocalTarget(), BOARD, policy=dataclasses.replace(QUICK, cores=(4711,))) as session:
        found = session.measure(small)
    assert (found.outcome, found.latency) == (Outcome.NO_CORES, None)


def test_energy_is_missing_with_its_reason(small: Artifact) -> None:
    found = measure(small, profile=BOARD)
    assert found.energy is None
    assert found.missing["energy"].startswith("no power sensor: the profile 'bench' names none")
    assert measure(small, profile=BOARD, policy=dataclasses.replace(QUICK, memory_workers=0)).memory is None
    sensed = DeviceProfile(name="pi", measurement=QUICK, power_sensors=(PowerSensor("pmic", "vcgencmd", "board"),))
    assert "not asked for" in measure(small, profile=sensed).missing["energy"]
    assert measure(small, profile=sensed, energy=True).missing["energy"].startswith("pmic: vcgencmd is not there")
    assert figures_of(found, small, 0.9)["energy"].value is None


def test_refused_percentiles_reach_the_figures(small: Artifact) -> None:
    few = dataclasses.replace(QUICK, min_runs=100, max_runs=100)
    figures = figures_of(measure(small, profile=BOARD, policy=few), small, None)
    assert figures["latency.p90"].value is not None
    assert figures["latency.p95"].value is None
    assert "p95 needs 130 runs, only 100 were timed" in figures["latency.p95"].missing


def test_unsettled_median_is_said(small: Artifact) -> None:
    strict = dataclasses.replace(QUICK, ci_share=1e-9, max_runs=200)
    found = measure(small, profile=BOARD, policy=strict)
    assert found.latency is not None
    assert not found.latency.converged
    assert any("after 200 runs" in warning for warning in found.warnings)


def test_inputs_of_every_kind(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    kinds = {"float16": TensorProto.FLOAT16, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}
    names = list(kinds)
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names]
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in kinds.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, ["batch", 3]) for name, kind in kinds.items()]
    path = tmp_path / "kinds.onnx"
    graph = helper.make_graph(nodes, "kinds", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    from edgeprune.export import manifest

    described = manifest.describe(path)
    assert [spec.dtype for spec in described.inputs] == names
    assert measure(described, profile=BOARD).outcome is Outcome.OK


def test_same_artifact_is_sent_once_and_few_stay(small: Artifact, tmp_path: Path) -> None:
    others = [chain_of_matmuls(tmp_path / f"{seed}.onnx", width=16, layers=1, seed=seed) for seed in range(6)]
    sent: list[str] = []

    class Counting(LocalTarget):
        def upload(self, source: Path, name: str) -> str:
            sent.append(source.name)
            return super().upload(source, name)

    with Session(Counting(), BOARD, policy=dataclasses.replace(QUICK, memory_workers=0)) as session:
        for artifact in (small, small, *others):
            assert session.measure(artifact).outcome is Outcome.OK
        stored = list(Path(session.target.folder).glob("*.onnx"))
    assert sent == [f"agent-{agent_sha256()[:16]}.pyz", "small.onnx", *(f"{seed}.onnx" for seed in range(6))]
    assert len(stored) == 4


def test_artifact_must_be_what_its_record_says(small: Artifact, tmp_path: Path) -> None:
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(small.path.read_bytes() + b"x")
    with Session(LocalTarget(), BOARD) as session:
        with pytest.raises(StorageError, match="sha256 differs"):
            session.measure(dataclasses.replace(small, path=changed))
        with pytest.raises(StorageError, match="cannot read"):
            session.measure(dataclasses.replace(small, path=tmp_path / "absent"))
        assert session.measure(small).outcome is Outcome.OK


# --- failures are outcomes


def test_model_that_does_not_load_is_a_crash(small: Artifact) -> None:
    wrong = dataclasses.replace(small, inputs=(TensorSpec("nothing", "float32", ("batch", 64)),))
    found = measure(wrong, profile=BOARD)
    assert found.outcome is Outcome.CRASHED
    assert "nothing" in found.message
    assert (found.latency, found.memory, found.energy) == (None, None, None)
    assert found.missing["latency"] == f"CRASHED: {found.message}"
    assert figures_of(found, small, None)["latency.p50"].value is None


def test_runtime_that_is_not_there(small: Artifact) -> None:
    found = measure(small, profile=BOARD, policy=dataclasses.replace(QUICK, runtime="openvino"))
    assert found.outcome is Outcome.NO_RUNTIME


def test_deadline_and_the_next_measurement(small: Artifact) -> None:
    with Session(LocalTarget(), BOARD, policy=dataclasses.replace(LONG, deadline_s=1.0)) as session:
        assert session.measure(small).outcome is Outcome.TIMEOUT
        session.policy = QUICK
        assert session.measure(small).outcome is Outcome.OK


def test_agent_killed_in_between_is_lost_and_the_session_heals(small: Artifact) -> None:
    with Session(LocalTarget(), BOARD, policy=LONG, reconnect_s=5) as session:
        before = children()
        agent = next(pid for pid in before if "--owner" in psutil.Process(pid).cmdline())
        threading.Timer(1.0, os.kill, (agent, signal.SIGKILL)).start()
        found = session.measure(small)
        assert found.outcome is Outcome.LOST
        assert "reachable again" in found.message
        session.policy = QUICK
        assert session.measure(small).outcome is Outcome.OK


def test_agent_that_went_away_unnoticed_is_replaced(small: Artifact) -> None:
    with Session(LocalTarget(), BOARD) as session:
        assert session.measure(small).outcome is Outcome.OK
        for pid in children():
            if "--owner" in psutil.Process(pid).cmdline():
                os.kill(pid, signal.SIGKILL)
        session._last_use -= 60  # a minute of training
        assert session.measure(small).outcome is Outcome.OK


def test_reboot_is_told_from_a_broken_link(small: Artifact) -> None:
    """The agent dies, and the device comes back with another boot id."""
    real = Path("/proc/sys/kernel/random/boot_id").read_text().strip().encode()

    class Rebooting(LocalTarget):
        boots = 0

        def start(self, argv: Sequence[str]) -> Channel:
            self.boots += 1
            return Renaming(super().start(argv), b"boot-%d" % self.boots)

    class Renaming:
        def __init__(self, channel: Channel, boot: bytes) -> None:
            self.channel, self.boot = channel, boot

        def __getattr__(self, name: str) -> Any:
            return getattr(self.channel, name)

        def receive(self, timeout_s: float) -> bytes:
            return self.channel.receive(timeout_s).replace(real, self.boot)

    with Session(Rebooting(), BOARD, policy=LONG, reconnect_s=5) as session:
        assert session.machine["boot_id"] == "boot-1"
        agent = next(pid for pid in children() if "--owner" in psutil.Process(pid).cmdline())
        threading.Timer(1.0, os.kill, (agent, signal.SIGKILL)).start()
        found = session.measure(small)
        assert (found.outcome, found.message) == (
            Outcome.REBOOTED,
            "local: the device rebooted during the measurement",
        )
        assert session.machine["boot_id"] == "boot-2"


def test_another_agent_than_the_one_sent_is_refused(tmp_path: Path) -> None:
    class Tampering(LocalTarget):
        def start(self, argv: Sequence[str]) -> Channel:
            with Path(next(part for part in argv if part.endswith(".pyz"))).open("a") as file:
                file.write("# more\n")
            return super().start(argv)

    with pytest.raises(TargetError, match="not the one sent"), Session(Tampering(), BOARD):
        pass
    assert not (tmp_path / "lock").exists()


def test_killed_host_leaves_nothing(small: Artifact, tmp_path: Path) -> None:
    """kill -9 in the middle of a measurement: agent, worker, folder and lock are gone."""
    program = f"""
import dataclasses
from tests.measure.test_session import BOARD, LONG, LocalTarget, Session
from tests.onnx_models import chain_of_matmuls
from pathlib import Path
with Session(LocalTarget(), BOARD, policy=LONG) as session:
    print(session.target.folder, flush=True)
    session.measure(chain_of_matmuls(Path({str(tmp_path / "m.onnx")!r}), width=64, layers=2))
"""
    host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    folder = Path(host.stdout.readline().strip())
    end = time.monotonic() + 20
    while not list(folder.glob("*.onnx")) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.5)
    below = psutil.Process(host.pid).children(recursive=True)
    assert len(below) >= 2  # agent and worker
    host.kill()
    host.communicate()
    assert psutil.wait_procs(below, timeout=10)[1] == []
    assert not folder.exists()
    assert not (tmp_path / "lock").exists()


def test_busy_device_refuses_a_second_session(small: Artifact) -> None:
    with Session(LocalTarget(), BOARD) as first:
        with (
            pytest.raises(TargetError, match=r"being measured on by .+@") as caught,
            Session(LocalTarget(), BOARD, wait_s=0),
        ):
            pass
        assert caught.value.outcome == "BUSY"
        assert caught.value.exit_code == 3
        assert first.measure(small).outcome is Outcome.OK


@pytest.mark.parametrize("remote", [False, True], ids=["local", "ssh"])
def test_others_may_have_the_device_while_nothing_is_asked(
    remote: bool, small: Artifact, large: Artifact, request: pytest.FixtureRequest
) -> None:
    """A run that trains for long: the device is taken back for the next measurement, once it is free."""

    def target() -> Target:
        return open_target(request.getfixturevalue("server").url) if remote else LocalTarget()

    with Session(target(), BOARD, rest_s=0.5, wait_s=60) as first:
        assert first.measure(small).outcome is Outcome.OK
        machine, agent = first.machine, first._client
        with Session(target(), BOARD, wait_s=20) as other:  # waits until the first is let go
            assert other.measure(large).outcome is Outcome.OK
            found: list[Outcome] = []
            asking = threading.Thread(target=lambda: found.append(first.measure(small).outcome))
            asking.start()
            assert other.measure(small).outcome is Outcome.OK
            assert not found  # it waits for its turn
        asking.join()
        assert found == [Outcome.OK]
        assert first._client is not agent
        assert first.machine["cpus"] == machine["cpus"]
        again = first._client
        assert first.measure(large).outcome is Outcome.OK
        assert first._client is again  # held while it is used


def test_waiting_for_the_device_is_said() -> None:
    said = io.StringIO()
    first = Session(LocalTarget(), BOARD)
    first.__enter__()
    threading.Timer(1.0, first.__exit__, (None, None, None)).start()
    with Session(LocalTarget(), BOARD, wait_s=30, progress=PlainProgress(said)) as second:
        assert second.machine["cpus"] == os.cpu_count()
    lines = said.getvalue().splitlines()
    owner = r"\S+@\S+ \(process \d+\)"
    assert re.fullmatch(
        rf"local is being measured on by {owner}, and a run leaves .*; waiting for at most 30 s", lines[0]
    )
    assert re.fullmatch(rf"waiting for local \(seconds\): \d+\.\d s, held by {owner}", lines[1])
    assert len(lines) == 2


def test_the_time_of_waiting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("edgeprune.measure.waiting.time", SimpleNamespace(monotonic=lambda: now))
    said = io.StringIO()
    with waiting("board", 600, PlainProgress(said, clock=lambda: now)) as wait:
        for now in (100.0, 105.3, 110.6, 121.0):  # noqa: B007
            wait("ada@lab (process 7)")
    assert said.getvalue().splitlines()[1:] == [
        "waiting for board (seconds): 10/600, held by ada@lab (process 7)",
        "waiting for board (seconds): 21/600, held by ada@lab (process 7)",
        "waiting for board (seconds): 21.0 s, held by ada@lab (process 7)",
    ]


def test_something_else_on_the_other_side() -> None:
    class Chatty(LocalTarget):
        def start(self, argv: Sequence[str]) -> Channel:
            return super().start(["sh", "-c", "while :; do echo You have mail.; done"])

    with pytest.raises(TargetError, match="something else than the agent"), Session(Chatty(), BOARD):
        pass


# --- over SSH


def test_ssh_gives_the_same_kind_of_result(small: Artifact, server: Sshd) -> None:
    with Session(open_target(server.url), BOARD) as session:
        found = session.measure(small)
        folder = Path(session.target.folder)
        assert folder.exists()
    assert found.outcome is Outcome.OK
    assert found.latency is not None
    assert found.memory is not None
    assert found.provenance is not None
    assert found.provenance.target == f"ssh://{server.user}@127.0.0.1:{server.port}"
    assert not folder.exists()


def test_broken_link_is_lost_and_leaves_nothing_on_the_device(small: Artifact, server: Sshd, tmp_path: Path) -> None:
    with Session(open_target(server.url), BOARD, policy=LONG, reconnect_s=10) as session:
        folder = Path(session.target.folder)
        agents = [
            process
            for process in psutil.process_iter(["cmdline"])  # None where it is not to be had: a zombie
            if str(folder) in " ".join(process.info["cmdline"] or [])
        ]
        assert agents
        threading.Timer(1.5, server.drop_connections).start()
        found = session.measure(small)
        assert found.outcome is Outcome.LOST
        assert "reachable again" in found.message
        assert not folder.exists()
        assert psutil.wait_procs(agents, timeout=10)[1] == []
        session.policy = QUICK
        assert session.measure(small).outcome is Outcome.OK
    assert not (tmp_path / "remote-lock").exists()


def test_probe_tells_machine_runtimes_and_differences(server: Sshd) -> None:
    board = DeviceProfile(name="tiny", bits=32, ram_bytes=512 << 20, measurement=QUICK)
    seen: Any = probe(server.url, board)
    assert seen["machine"]["cpus"] == os.cpu_count()
    assert seen["can_measure"] is True
    assert "version" in seen["runtimes"]["onnxruntime"]
    assert len(seen["conditions"]["load"]) == 3
    assert [text.partition(":")[0] for text in seen["differences"]] == ["userland", "memory"]
    assert probe("local", "host")["differences"] == []


def test_unreachable_device_raises_before_anything(small: Artifact) -> None:
    with pytest.raises(TargetError, match="refused"):
        measure(small, target="ssh://me@127.0.0.1:1", profile=BOARD)


def test_targets_are_what_the_seam_says() -> None:
    target: Target = LocalTarget()
    assert target.name == "local"
