"""Every way to fail has its name, leaves nothing behind, and the session goes on."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeprune.errors import TargetError
from edgeprune.measure import link
from edgeprune.measure.session import Session
from edgeprune.pipeline.measure import measure
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.figures import figures_of
from edgeprune.records.measurement import Outcome
from edgeprune.targets.base import Channel
from edgeprune.targets.local import LocalTarget
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd
from tests.measure.quick import BOARD, LONG, QUICK, children


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


def test_agent_killed_during_an_upload_is_lost(small: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that comes in its place has not got what was sent, which would look like a model that crashes it."""
    monkeypatch.setattr(link, "_TRUSTED_S", 0.0)
    killed: list[int] = []

    class Fatal(LocalTarget):
        def upload(self, source: Path, name: str, folder: str | None = None) -> str:
            path = super().upload(source, name, folder)
            if source.suffix == ".onnx" and not killed:
                killed.extend(pid for pid in children() if "--owner" in psutil.Process(pid).cmdline())
                os.kill(killed[0], signal.SIGKILL)
            return path

    with Session(Fatal(), BOARD, reconnect_s=5) as session:
        assert session.measure(small).outcome is Outcome.LOST
        assert session.measure(small).outcome is Outcome.OK
    assert len(killed) == 1


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
from edgeprune.measure.session import Session
from edgeprune.targets.local import LocalTarget
from tests.measure.quick import BOARD, LONG
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


def test_something_else_on_the_other_side() -> None:
    class Chatty(LocalTarget):
        def start(self, argv: Sequence[str]) -> Channel:
            return super().start(["sh", "-c", "while :; do echo You have mail.; done"])

    with pytest.raises(TargetError, match="something else than the agent"), Session(Chatty(), BOARD):
        pass


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


def test_unreachable_device_raises_before_anything(small: Artifact) -> None:
    with pytest.raises(TargetError, match="refused"):
        measure(small, target="ssh://me@127.0.0.1:1", profile=BOARD)
