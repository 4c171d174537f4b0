"""What can go wrong on a board in the middle of a measurement: each has its outcome, and nothing is lost or left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import TargetError
from edgeprune.measure import session as session_module
from edgeprune.measure.session import Session
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.profile import DeviceProfile, load_profile
from edgeprune.targets.parse import open_target
from tests.board.emulated import EmulatedBoard
from tests.onnx_models import chain_of_matmuls, described


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return chain_of_matmuls(tmp_path_factory.mktemp("model") / "small.onnx", width=64, layers=3)


@pytest.fixture(scope="module")
def kind(profile: Path) -> DeviceProfile:
    """Short measurements of latency alone."""
    found = load_profile(profile)
    return replace(found, measurement=replace(found.measurement, memory_workers=0))


@pytest.fixture(scope="module")
def long(kind: DeviceProfile) -> DeviceProfile:
    """The same, with enough time for something to happen in the middle."""
    policy = replace(kind.measurement, min_s=12.0, max_s=12.0, max_runs=10**9)
    return replace(kind, measurement=policy)


def measured_while(
    session: Session, artifact: Artifact, board: EmulatedBoard, happens: Callable[[], None]
) -> Measurement:
    """The measurement, with `happens` called while the model runs."""
    result: list[Measurement] = []
    thread = threading.Thread(target=lambda: result.append(session.measure(artifact)))
    thread.start()
    try:
        name = artifact.sha256[:32]
        end = time.monotonic() + 60
        while "worker" not in board.sh(
            f"ls /tmp/edgeprune-*/{name}* >/dev/null 2>&1 && pgrep -f -- --worker >/dev/null && echo worker; true"
        ):
            assert time.monotonic() < end, "the measurement did not start"
        time.sleep(5)  # the worker imports its runtime, warms up, and measures for 12 s
        happens()
    finally:
        thread.join(timeout=200)
    assert result, "the measurement did not end"
    return result[0]


def test_a_frozen_board_is_out_of_reach_and_comes_back(
    equipped: EmulatedBoard, model: Artifact, long: DeviceProfile, kind: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_GRACE_S", 3.0)
    long = replace(long, measurement=replace(long.measurement, deadline_s=20.0))
    try:
        with Session(open_target(equipped.url()), long, reconnect_s=3) as session:
            found = measured_while(session, model, equipped, equipped.freeze)
            assert found.outcome in {Outcome.LOST, Outcome.TIMEOUT}
            assert found.latency is None
            equipped.thaw()
            monkeypatch.setattr(session_module, "_GRACE_S", 30.0)
            session.policy = kind.measurement
            assert session.measure(model).outcome is Outcome.OK
    finally:
        equipped.thaw()
    equipped.wait_until_clean()


def test_a_reboot_has_a_name_and_the_runtime_stays(
    equipped: EmulatedBoard, model: Artifact, long: DeviceProfile, kind: DeviceProfile
) -> None:
    with Session(open_target(equipped.url()), long, reconnect_s=120) as session:
        boot = session.machine["boot_id"]
        found = measured_while(session, model, equipped, equipped.reboot)
        assert (found.outcome, found.latency) == (Outcome.REBOOTED, None)
        assert session.machine["boot_id"] != boot
        session.policy = kind.measurement
        assert session.measure(model).outcome is Outcome.OK
    equipped.wait_until_clean()


@contextmanager
def memory_limit(board: EmulatedBoard, limit: str) -> Iterator[None]:
    """All that the SSH server starts from now on, together."""
    board.sh(
        "cd /sys/fs/cgroup; echo +memory > cgroup.subtree_control; mkdir ssh; "
        f"echo {limit} > ssh/memory.max; pgrep -o -x sshd > ssh/cgroup.procs"
    )
    try:
        yield
    finally:
        board.sh(
            "cd /sys/fs/cgroup; for p in $(cat ssh/cgroup.procs); do echo $p > cgroup.procs; done; rmdir ssh; true"
        )


def huge(path: Path) -> Artifact:
    """A small file that needs 1 GiB when it runs."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["wide"]),
        helper.make_node("Add", ["wide", "x"], ["more"]),
        helper.make_node("ReduceSum", ["more"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "huge",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(np.array([8192, 16384], np.int64), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    spec = TensorSpec("x", "float32", (1, 1))
    return described(path, (spec,), (replace(spec, name="y"),))


def test_a_worker_killed_for_memory_is_out_of_memory(
    equipped: EmulatedBoard, model: Artifact, kind: DeviceProfile, tmp_path: Path
) -> None:
    with memory_limit(equipped, "300M"), Session(open_target(equipped.url()), kind) as session:
        found = session.measure(huge(tmp_path / "huge.onnx"))
        assert (found.outcome, found.latency) == (Outcome.OOM, None)
        assert "kernel killed the worker" in str(found.message)
        assert session.measure(model).outcome is Outcome.OK
    equipped.wait_until_clean()


def test_the_clock_may_be_set_back(
    equipped: EmulatedBoard, model: Artifact, long: DeviceProfile, kind: DeviceProfile
) -> None:
    def set_clock(seconds: int) -> None:
        equipped.sh(f"date -s @$(($(date +%s) + {seconds}))")

    with Session(open_target(equipped.url()), kind) as session:
        plain = session.measure(model)
        session.policy = long.measurement
        try:
            found = measured_while(session, model, equipped, lambda: set_clock(-3600))
        finally:
            set_clock(3600)
    assert (plain.outcome, found.outcome) == (Outcome.OK, Outcome.OK)
    assert plain.latency is not None
    assert found.latency is not None
    assert all(0 < value < 60_000 for value in found.latency.raw_ms)
    assert len(found.latency.raw_ms) == found.latency.samples
    assert 8_000 < sum(found.latency.raw_ms) < 120_000  # of the 12 s that were asked for
    ratio = found.latency.percentile_ms["p50"] / plain.latency.percentile_ms["p50"]
    assert 1 / 5 < ratio < 5  # a shared machine


def test_a_second_user_is_told_who_measures(equipped: EmulatedBoard, kind: DeviceProfile, model: Artifact) -> None:
    from edgeprune.pipeline.device_check import check

    with Session(open_target(equipped.url()), kind) as session:
        with pytest.raises(TargetError) as caught:
            Session(open_target(equipped.url("root")), kind, wait_s=0).__enter__()
        assert caught.value.outcome == "BUSY"
        assert "is being measured on by" in caught.value.message
        findings = {finding.name: finding for finding in check(equipped.url("root"))}
        assert {name: finding.state for name, finding in findings.items()} == {"reachable": "ok", "lock": "failed"}
        assert session.measure(model).outcome is Outcome.OK
    equipped.wait_until_clean()


def test_a_link_that_loses_packets_loses_no_sample(
    equipped: EmulatedBoard, kind: DeviceProfile, model: Artifact
) -> None:
    equipped.sh("tc qdisc add dev eth0 root netem loss 5%")
    try:
        with Session(open_target(equipped.url()), kind) as session:
            found = session.measure(model)
        dropped = equipped.sh("tc -s qdisc show dev eth0")
    finally:
        equipped.sh("tc qdisc del dev eth0 root")
    assert found.outcome is Outcome.OK
    assert found.latency is not None
    assert len(found.latency.raw_ms) == found.latency.samples >= 20
    assert int(dropped.split("dropped ")[1].split(",")[0]) > 0
    equipped.wait_until_clean()
