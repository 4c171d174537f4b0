"""Sessions with real devices (this machine, a real sshd) and real ONNX Runtime."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.agent.bundle import agent_sha256
from edgeprune.errors import StorageError
from edgeprune.measure.session import Session
from edgeprune.pipeline.device import probe
from edgeprune.pipeline.measure import measure
from edgeprune.records.artifact import Artifact
from edgeprune.records.figures import figures_of
from edgeprune.records.measurement import Outcome
from edgeprune.records.profile import DeviceProfile, PowerSensor
from edgeprune.report.measured_on import of_provenance
from edgeprune.targets.base import Target
from edgeprune.targets.local import LocalTarget
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd
from tests.measure.quick import BOARD, QUICK, children
from tests.onnx_models import chain_of_matmuls


def by_hand(artifact: Artifact, runs: int = 200) -> float:
    """Milliseconds of the quickest run of a plain loop: what runs beside it slows down the others."""
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
    return min(times[20:])


def test_latency_and_memory_agree_with_the_truth(large: Artifact) -> None:
    before = children()
    hand = by_hand(large)
    patient = dataclasses.replace(QUICK, memory_workers=3, max_s=30.0)  # 150 runs, whatever is beside it
    with Session(LocalTarget(), BOARD, policy=patient) as session:
        found = session.measure(large)
        folder = Path(session.target.folder)
    assert found.outcome is Outcome.OK
    assert found.latency is not None
    assert found.latency.samples == len(found.latency.raw_ms) >= 150
    assert found.latency.warmup_runs >= 3
    assert found.latency.percentile_ms["p50"] == statistics.median(found.latency.raw_ms)
    assert 0.5 * hand < min(found.latency.raw_ms) < 2 * hand
    assert set(found.latency.percentile_ms) >= {"p50", "p90", "p95"}
    assert found.memory is not None
    weights = 10 * 1024 * 1024 * 4
    assert weights <= found.memory.model_peak_bytes <= 4 * weights
    assert found.memory.process_peak_bytes >= found.memory.idle_bytes + weights
    assert found.memory.inference_peak_bytes is not None
    assert found.memory.inference_peak_bytes < weights  # the weights came with the load
    assert found.memory.noise_bytes < weights  # the allocator keeps 0 to 4 matrices more
    assert found.memory.workers == len(found.conditions["memory_workers"]) == 3
    assert not folder.exists()
    assert children() <= before  # what another test left may end meanwhile


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


def test_probe_tells_machine_runtimes_and_differences(server: Sshd) -> None:
    board = DeviceProfile(name="tiny", bits=32, ram_bytes=512 << 20, measurement=QUICK)
    seen: Any = probe(server.url, board)
    assert seen["machine"]["cpus"] == os.cpu_count()
    assert seen["can_measure"] is True
    assert "version" in seen["runtimes"]["onnxruntime"]
    assert len(seen["conditions"]["load"]) == 3
    assert [text.partition(":")[0] for text in seen["differences"]] == ["userland", "memory"]
    assert probe("local", "host")["differences"] == []


def test_targets_are_what_the_seam_says() -> None:
    target: Target = LocalTarget()
    assert target.name == "local"
