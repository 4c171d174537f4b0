"""A link that is cut and an agent that is killed or stopped in mid-measurement: outcomes by name, and all goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from edgeprune.agent.client import AgentClient
from edgeprune.measure.session import Session
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Outcome
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd, sshd_missing
from tests.onnx_models import chain_of_matmuls

QUICK = MeasurementPolicy(warmup_s=0.05, min_s=0.05, max_s=1.0, min_runs=150, ci_share=0.2, memory_workers=0)
BOARD = DeviceProfile(name="bench", measurement=QUICK)


@pytest.fixture
def small(tmp_path: Path) -> Artifact:
    return chain_of_matmuls(tmp_path / "small.onnx", width=64, layers=2)


@pytest.fixture(params=["local", "ssh"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    environment = {"EDGEPRUNE_LOCK": str(tmp_path / "lock")}
    if request.param == "local":
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield "local"
        return
    if missing := sshd_missing():
        pytest.skip(missing)
    with Sshd(environment) as server:
        yield server.url


def with_lock(lock: Path) -> list[psutil.Process]:
    """Agents and workers that were started with this lock."""
    mark = f"EDGEPRUNE_LOCK={lock}".encode()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            started_with = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if mark in started_with and any(".pyz" in part for part in process.cmdline()):
                found.append(process)
    return found


def hit_in_mid_measurement(session: Session, artifact: Artifact, lock: Path, number: int) -> Outcome:
    """Send a signal to the agent once its worker measures; how the measurement ended."""

    def hit() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for process in with_lock(lock):
                if "--worker" in process.cmdline() and process.cpu_times().user > 0.5:
                    process.parent().send_signal(number)  # type: ignore[union-attr]
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=hit)
    thread.start()
    try:
        return session.measure(artifact).outcome
    finally:
        thread.join()


def settled(condition: Callable[[], bool]) -> bool:
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_killed_agent_is_lost_and_the_session_goes_on(url: str, small: Artifact, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with Session(open_target(url), BOARD, reconnect_s=30.0) as session:
        session.policy = dataclasses.replace(QUICK, min_s=60.0, max_s=60.0, max_runs=10**8)
        assert hit_in_mid_measurement(session, small, lock, signal.SIGKILL) is Outcome.LOST
        session.policy = QUICK
        assert session.measure(small).outcome is Outcome.OK
    assert settled(lambda: not with_lock(lock))
    assert not lock.exists()


def test_stopped_agent_is_a_timeout_and_the_session_goes_on(
    url: str, small: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeprune.measure.link.AgentClient", partial(AgentClient, silence_s=10.0))
    lock = tmp_path / "lock"
    with Session(open_target(url), BOARD, reconnect_s=30.0) as session:
        session.policy = dataclasses.replace(QUICK, min_s=60.0, max_s=60.0, max_runs=10**8)
        assert hit_in_mid_measurement(session, small, lock, signal.SIGSTOP) is Outcome.TIMEOUT
        session.policy = QUICK
        assert session.measure(small).outcome is Outcome.OK
    assert settled(lambda: not with_lock(lock))
    assert not lock.exists()
