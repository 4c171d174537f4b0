"""Memory figures against what is known: weights of a given size, pages of a file, a fake /proc."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.agent.device.memory import Sampler, memory_of, nvmap_used
from edgeprune.measure.session import Session
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Measurement, Memory
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
from edgeprune.targets.local import LocalTarget
from tests.agent.runtime_models import chain, interpreter_of
from tests.agent.systems import fake_system
from tests.onnx_models import chain_of_matmuls, described

MIB = 1 << 20
WEIGHTS = 10 * 1024 * 1024 * 4
POLICY = MeasurementPolicy(warmup_s=0.05, min_s=0.05, max_s=1.0, min_runs=20, ci_share=0.5, memory_workers=3)


def measured(artifact: Artifact, python: str = sys.executable) -> Measurement:
    with Session(LocalTarget(python=python), DeviceProfile(name="bench", measurement=POLICY)) as session:
        found = session.measure(artifact)
    assert found.memory is not None, found
    return found


def known(found: Measurement) -> Memory:
    assert found.memory is not None
    return found.memory


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Memory]:
    """By layers of 4 MiB of weights each."""
    folder = tmp_path_factory.mktemp("models")
    models = {layers: chain_of_matmuls(folder / f"{layers}.onnx", width=1024, layers=layers) for layers in (1, 10)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(folder / "lock"))
        return {layers: known(measured(model)) for layers, model in models.items()}


def test_anonymous_growth_is_the_weights_and_what_the_runtime_adds(chains: dict[int, Memory]) -> None:
    grown = chains[10].anonymous_peak_bytes
    assert grown is not None
    # the arena grows in steps of powers of two, and the allocator keeps 0 to 4 matrices more, not the same each time
    assert WEIGHTS <= grown <= 2.5 * WEIGHTS


def test_growth_splits_into_anonymous_and_file_backed(chains: dict[int, Memory]) -> None:
    for found in chains.values():
        assert found.anonymous_peak_bytes is not None
        assert found.file_peak_bytes is not None
        seen = found.anonymous_peak_bytes + found.file_peak_bytes
        assert abs(seen - found.model_peak_bytes) <= max(0.05 * found.model_peak_bytes, MIB)
    # ONNX Runtime reads the weights and maps no file of them: what is mapped are its own pages, whatever the model
    assert abs((chains[10].file_peak_bytes or 0) - (chains[1].file_peak_bytes or 0)) < 2 * MIB


def test_the_difference_of_two_models_is_the_difference_of_their_weights(chains: dict[int, Memory]) -> None:
    grown = chains[10].model_peak_bytes - chains[1].model_peak_bytes
    assert 0.9 * WEIGHTS <= grown <= 2.5 * WEIGHTS


def test_noise_is_measured_and_small(chains: dict[int, Memory]) -> None:
    for found in chains.values():
        assert os.sysconf("SC_PAGE_SIZE") <= found.noise_bytes < WEIGHTS
        assert found.swapped_bytes == 0
        assert found.inference_peak_bytes is not None
        assert 0 <= found.inference_peak_bytes < 4 * MIB  # activations of 4 KiB; the weights came with the load


def test_mapped_weights_are_file_backed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteRT maps the file and copies the weights in another order: the same bytes once of each kind."""
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    python = interpreter_of("ai-edge-litert")
    reference = chain_of_matmuls(tmp_path / "reference.onnx", width=1024, layers=10)
    path, _ = chain("ai-edge-litert", tmp_path, width=1024, layers=10)
    artifact = dataclasses.replace(described(path, reference.inputs, reference.outputs), format="tflite")
    found = known(measured(artifact, python))
    assert found.file_peak_bytes is not None
    assert found.anonymous_peak_bytes is not None
    assert WEIGHTS <= found.file_peak_bytes <= WEIGHTS + 16 * MIB
    assert WEIGHTS <= found.anonymous_peak_bytes <= 1.2 * WEIGHTS


# --- reading /proc


def test_memory_of_a_process_follows_what_it_touches(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(32 * MIB))
    program = """
import mmap, sys
print("ready", flush=True)
sys.stdin.readline()
block = bytearray(64 << 20)
for place in range(0, len(block), 4096): block[place] = 1
with open(sys.argv[1], "rb") as file: mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
total = sum(mapped[place] for place in range(0, len(mapped), 4096))
print("touched", flush=True)
sys.stdin.readline()
del block
print("freed", flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", program, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        before = memory_of(str(child.pid))
        sampler = Sampler(child.pid, Path("/"))
        for word in ("touched", "freed"):
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == f"{word}\n"
            sampler.sample()
        after = memory_of(str(child.pid))
        child.stdin.close()
    highest = sampler.result()["sampled"]
    # the kernel adds its counters up in batches: they lag by some pages
    assert 63 * MIB <= highest["anonymous"] - before["anonymous"] <= 66 * MIB
    assert 31 * MIB <= highest["file"] - before["file"] <= 34 * MIB
    assert after["resident"] < highest["resident"] - 60 * MIB
    assert after["peak"] >= highest["resident"] - MIB
    assert memory_of(str(child.pid)) == {}  # it has ended


def test_old_kernels_tell_no_kinds(tmp_path: Path) -> None:
    fake_system(tmp_path, {"proc/7/status": "VmHWM:\t 900 kB\nVmRSS:\t 800 kB\n"})
    assert memory_of("7", tmp_path) == {"peak": 900 * 1024, "resident": 800 * 1024}


CLIENTS = """\
CLIENT                        PROCESS      PID        SIZE
user                   gnome-shell     1234      20480K
user                      python3       77       1024K
user                      python3       77        512K
total                                           22016K
"""


def test_nvmap_of_the_process_where_root_may_read_it(tmp_path: Path) -> None:
    meminfo = "MemTotal: 1 kB\nNvMapMemFree: 0 kB\nNvMapMemUsed: 22016 kB\n"
    fake_system(tmp_path, {"sys/kernel/debug/nvmap/iovmm/clients": CLIENTS, "proc/meminfo": meminfo})
    assert nvmap_used("77", tmp_path) == (1536 * 1024, "process")
    assert nvmap_used("7", tmp_path) == (0, "process")
    (tmp_path / "sys/kernel/debug/nvmap/iovmm/clients").unlink()
    assert nvmap_used("77", tmp_path) == (22016 * 1024, "device")
    fake_system(tmp_path, {"proc/meminfo": "MemTotal: 1 kB\n"})
    assert nvmap_used("77", tmp_path) is None


def test_nvmap_growth_is_that_of_its_highest_sample(tmp_path: Path) -> None:
    sampler = None
    for used in (1000, 1500, 5000, 2000):
        fake_system(tmp_path, {"proc/meminfo": f"NvMapMemUsed: {used} kB\n", "proc/7/status": "VmRSS: 8 kB\n"})
        if sampler is None:
            sampler = Sampler(7, tmp_path)
        sampler.sample()
    assert sampler is not None
    assert sampler.result()["nvmap"] == {"growth": 4000 * 1024, "scope": "device"}
