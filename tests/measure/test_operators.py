"""Single operators through the real local agent: profiles of whole models, and timings of operators on their own."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from edgeprune.agent.device.frames import OutcomeError
from edgeprune.agent.device.profile import interquartile_mean, read_nodes
from edgeprune.agent.device.runtimes import Runtime
from edgeprune.agent.frames import FrameError, check
from edgeprune.errors import TargetError
from edgeprune.export.micro import micro_model
from edgeprune.export.onnx import OnnxExporter
from edgeprune.measure.session import Session
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.measurement import Outcome
from edgeprune.records.operators import ConvSignature, LinearSignature, MicroModel, OperatorTiming, TimingPolicy
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
from edgeprune.targets.local import LocalTarget
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd, sshd_missing

POLICY = MeasurementPolicy(warmup_s=0.1)
TIMING = TimingPolicy(min_s=0.02, max_s=0.2)
CONV = ConvSignature(32, 32, (16, 16), (3, 3), padding=(1, 1), activation="relu")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(tmp_path_factory.mktemp("lock") / "lock"))
        with Session(LocalTarget(), DeviceProfile(name="bench"), policy=POLICY) as opened:
            yield opened


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Six of CONV, and one linear layer."""
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()
    path = tmp_path_factory.mktemp("models") / "network.onnx"
    return OnnxExporter().export(module, (torch.randn(1, 32, 16, 16),), path, batch_dynamic=False)


def files(session: Session) -> set[str]:
    return {path.name for path in Path(session.target.folder).iterdir()}


def test_profile_names_every_node_with_its_shapes(session: Session, network: Artifact) -> None:
    found = session.runtime_profile(network, runs=60)
    assert (found.outcome, found.message) == (Outcome.OK, "")
    convs = [node for node in found.nodes if node.op_type == "Conv"]
    assert len(convs) == 6
    for node in convs:
        assert node.input_shapes == ((1, 32, 16, 16), (32, 32, 3, 3), (32,))
        assert node.output_shapes == ((1, 32, 16, 16),)
        assert (node.provider, node.runs) == ("CPUExecutionProvider", 60)
    assert found.nodes[-1].output_shapes == ((1, 10),)
    assert found.runs == 60
    assert found.plain_ns is not None
    assert found.profiled_ns is not None
    together = sum(node.ns for node in found.nodes)
    assert 0.3 * found.profiled_ns < together < 1.3 * found.profiled_ns
    assert found.provenance is not None
    assert found.provenance.runtime_version == session.runtimes["onnxruntime"]["version"]
    assert not [name for name in files(session) if "trace" in name or name.startswith("tmp")]


def test_operator_takes_the_time_that_it_takes_in_its_network(session: Session, network: Artifact) -> None:
    """Loosely: load moves both."""
    for _ in range(3):
        profile = session.runtime_profile(network, runs=60)
        alone = session.operators({CONV.key: micro_model(CONV)}, timing=TIMING)[CONV.key]
        inside = statistics.median(node.ns for node in profile.nodes if node.op_type == "Conv")
        assert alone.kernel_ns is not None
        assert alone.run_ns is not None
        if 0.6 < alone.kernel_ns / inside < 1.6 and alone.kernel_ns < 1.2 * alone.run_ns:
            return
    pytest.fail(f"alone {alone.kernel_ns} ns, inside its network {inside} ns, with its call {alone.run_ns} ns")


def test_many_operators_at_once(session: Session) -> None:
    small, large = LinearSignature(1, 16, 16), LinearSignature(64, 512, 512)
    models = {one.key: micro_model(one) for one in (small, large, CONV)}
    found = session.operators(models, timing=TIMING)
    assert set(found) == set(models)
    for timing in found.values():
        assert timing.error == ""
        assert timing.run_ns == min(timing.medians_ns)
        assert len(timing.medians_ns) == 2
        assert timing.runs >= 2 * TIMING.min_runs
        assert timing.lower_quartile_ns is not None
        assert timing.run_ns is not None
        assert timing.lower_quartile_ns <= timing.run_ns
        assert timing.kernel_ns is not None
    assert (found[large.key].kernel_ns or 0) > 20 * (found[small.key].kernel_ns or 0)
    assert not [name for name in files(session) if name.startswith("operators")]


def test_a_model_that_fails_says_so_under_its_own_key_alone(session: Session) -> None:
    good = micro_model(CONV)
    wrong = dataclasses.replace(good, inputs=(TensorSpec("x", "float32", (1, 31, 16, 16)),))
    found = session.operators({"good": good, "broken": MicroModel(b"no model", ()), "wrong": wrong}, timing=TIMING)
    assert found["good"].run_ns is not None
    assert (found["broken"].run_ns, found["broken"].stable, found["broken"].ns) == (None, False, None)
    assert "InvalidProtobuf" in found["broken"].error
    assert "Got: 31 Expected: 32" in found["wrong"].error


def test_a_format_that_nothing_runs_is_an_error_with_its_outcome(session: Session) -> None:
    with pytest.raises(TargetError, match="no runtime here takes") as caught:
        session.operators({"a": MicroModel(b"", (), ".xyz")}, timing=TIMING)
    assert caught.value.outcome == "NO_RUNTIME"
    assert session.connected


def test_a_runtime_without_profiler_is_an_outcome() -> None:
    class Plain(Runtime):
        name, package = "plain", "json"

    with pytest.raises(OutcomeError, match="plain has no profiler") as caught:
        Plain().profiled({}, "")
    assert Outcome(caught.value.outcome) is Outcome.NO_PROFILER


def test_only_the_last_runs_count_and_the_middle_half_of_them(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    event = (
        '{{"cat" : "Node","dur" :{},"name" :"{}","args" : {{"op_name" : "Conv","provider" : "P","node_index" : "{}",'
        '"input_type_shape" : [{{"float":[1,2]}},{{"int64":[]}}],"output_type_shape" : [{{"float":[3]}}]}}}},\n'
    )
    lines = [event.format(900, "a_kernel_time", 1)]
    lines += [event.format(us, "a_kernel_time", 1) for us in (5, 6, 6, 90)]
    lines += [event.format(7, "a_fence_before", 1), '{"cat" : "Session","dur" :3,"name" :"model_run","args" : {}}\n']
    trace.write_text("[\n" + "".join(lines) + "]\n")
    node = {"name": "a", "op_type": "Conv", "provider": "P", "inputs": [[1, 2], []], "outputs": [[3]]}
    assert read_nodes(trace, 4) == [{**node, "runs": 4, "ns": 6500}]
    assert interquartile_mean([1, 2, 3, 100]) == 2.5
    assert interquartile_mean([7]) == 7


def test_passes_that_differ_are_not_stable() -> None:
    assert OperatorTiming(run_ns=100, medians_ns=(100, 110)).stable
    assert not OperatorTiming(run_ns=100, medians_ns=(100, 111)).stable
    assert (OperatorTiming(run_ns=100).ns, OperatorTiming(run_ns=100, kernel_ns=80).ns) == (100, 80)


NODE = {"name": "a", "op_type": "Conv", "provider": "P", "ns": 5, "runs": 3, "inputs": [[1, 3]], "outputs": [[]]}
TIMED = {"key": "conv", "number": 0, "p50_ns": 5, "p25_ns": 4, "runs": 3, "kernel_ns": 3}


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "node", **NODE, "ns": 0},
        {"type": "node", **NODE, "inputs": [["x"]]},
        {"type": "node", **NODE, "name": None},
        {"type": "timing", **TIMED, "p50_ns": -1},
        {"type": "timing", **TIMED, "kernel_ns": "3"},
        {"type": "timing", **TIMED, "key": "k" * 100_000},
        {"type": "timing", "key": "conv", "number": 0},
        {"type": "timing", "key": "conv", "number": 0, "error": 7},
    ],
)
def test_figures_that_cannot_be_are_refused(frame: dict[str, object]) -> None:
    check({"type": "node", **NODE})
    check({"type": "timing", **TIMED})
    check({"type": "timing", "key": "conv", "number": 0, "error": "no"})
    with pytest.raises(FrameError):
        check(frame)


def test_a_worker_that_is_killed_is_an_outcome_and_the_session_goes_on(session: Session) -> None:
    long = TimingPolicy(min_s=60.0, max_s=60.0, max_runs=10**9)

    def kill() -> None:
        for _ in range(600):
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "--worker" in child.cmdline() and child.cpu_times().user > 0.3:
                        child.send_signal(signal.SIGSEGV)
                        return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TargetError, match="SIGSEGV") as caught:
        session.operators({CONV.key: micro_model(CONV)}, timing=long)
    killer.join()
    assert caught.value.outcome == "CRASHED"
    assert session.connected
    assert not [name for name in files(session) if name.startswith("operators")]
    assert session.operators({CONV.key: micro_model(CONV)}, timing=TIMING)[CONV.key].error == ""


def test_progress_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    steps: list[tuple[str, int | None]] = []
    done: list[tuple[int, str]] = []

    class Seen:
        @contextlib.contextmanager
        def step(self, description: str, total: int | None = None) -> Iterator[Seen]:
            steps.append((description, total))
            yield self

        def advance(self, amount: int = 1, note: str = "") -> None:
            done.append((amount, note))

        def say(self, message: str) -> None:
            raise AssertionError(message)

    with Session(LocalTarget(), DeviceProfile(name="bench"), policy=POLICY, progress=Seen()) as opened:
        opened.operators({key: micro_model(CONV) for key in ("conv a", "conv b")}, timing=TIMING)
    assert ("timing operators on local", 4) in steps
    assert [entry for entry in done if entry[0]] == [(1, "conv")] * 4


def test_over_ssh(tmp_path: Path, network: Artifact) -> None:
    if missing := sshd_missing():
        pytest.skip(missing)
    server = Sshd({"EDGEPRUNE_LOCK": str(tmp_path / "remote-lock")})
    with server, Session(open_target(server.url), DeviceProfile(name="bench"), policy=POLICY) as opened:
        found = opened.operators({CONV.key: micro_model(CONV)}, timing=TIMING)
        assert len(opened.runtime_profile(network, runs=5).nodes) >= 8
    assert found[CONV.key].kernel_ns is not None
