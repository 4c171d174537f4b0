"""What goes wrong between here and a board, made to happen: each has its name, nothing is lost, nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import HostKeyError, TargetError
from edgeprune.targets import ssh_link, upload
from edgeprune.targets.link import Stream
from edgeprune.targets.parse import open_target
from edgeprune.targets.remote import RemoteTarget
from edgeprune.testing.sshd import Sshd
from edgeprune.testing.targets import run
from tests.targets.adb_device import AdbDevice, missing
from tests.targets.board import UID, Board, board
from tests.targets.conftest import skip_or_fail
from tests.targets.relay import Relay

MIB = 1 << 20


@pytest.fixture(params=["dropbear", "sshd"])
def made(request: pytest.FixtureRequest) -> Iterator[Board]:
    with board(request.param) as made:
        yield made
        assert made.left_behind() == []
        assert made.programs() == []


@pytest.fixture
def relay(made: Board) -> Iterator[Relay]:
    with Relay(made.port) as relay:
        made.trust(relay.port)
        yield relay


@pytest.fixture
def target(made: Board, relay: Relay) -> Iterator[RemoteTarget]:
    target = open_target(made.url(port=relay.port))
    assert isinstance(target, RemoteTarget)
    with target:
        yield target


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(random.Random(0).randbytes(8 * MIB))
    return path


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((upload, "_SEND_S"), (upload, "_CHECK_S"), (ssh_link, "_CONNECT_S"), (ssh_link, "_COMMAND_S")):
        monkeypatch.setattr(module, name, 1.0)


def listing(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith(".pid-"))


def test_upload_goes_on_where_the_link_broke(target: RemoteTarget, relay: Relay, file: Path) -> None:
    relay.cut_at(3 * MIB, 6 * MIB)
    path = target.upload(file, "file.bin")
    assert Path(path).read_bytes() == file.read_bytes()
    assert listing(target.folder) == ["file.bin"]
    transfer = target.last_upload
    assert transfer is not None
    assert (transfer.size_bytes, transfer.found_bytes, transfer.reconnects) == (8 * MIB, 0, 2)
    assert transfer.resent_bytes == transfer.sent_bytes - 8 * MIB
    assert 0 < transfer.resent_bytes < 8 * MIB  # what was on its way, not what had arrived
    assert relay.connections == 3


def test_upload_waits_for_the_device_to_come_back(target: RemoteTarget, relay: Relay, file: Path) -> None:
    relay.cut_at(3 * MIB)
    relay.refusing = 2
    assert Path(target.upload(file, "file.bin")).read_bytes() == file.read_bytes()
    assert relay.connections == 4


def test_upload_gives_up_after_some_breaks_and_goes_on_next_time(
    made: Board, relay: Relay, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_RECONNECTS", 1)
    target = open_target(made.url(port=relay.port))
    assert isinstance(target, RemoteTarget)
    with target:
        relay.cut_at(3 * MIB, 5 * MIB)
        with pytest.raises(TargetError) as caught:
            target.upload(file, "file.bin", target.home)
        assert caught.value.outcome == "LOST"
    with target:
        assert listing(target.home) == ["file.bin.part", "file.bin.part.pid"]
        path = target.upload(file, "file.bin", target.home)
        assert Path(path).read_bytes() == file.read_bytes()
        assert listing(target.home) == ["file.bin"]
        transfer = target.last_upload
        assert transfer is not None
        assert transfer.found_bytes > 0
        assert transfer.sent_bytes == 8 * MIB - transfer.found_bytes
        assert transfer.resent_bytes == 0


def test_part_of_something_else_is_not_gone_on_with(target: RemoteTarget, file: Path) -> None:
    part = Path(target.home) / "file.bin.part"
    for content in (b"something else", bytes(9 * MIB)):
        part.write_bytes(content)
        os.chown(part, UID, UID)
        assert Path(target.upload(file, "file.bin", target.home)).read_bytes() == file.read_bytes()
        assert target.last_upload is not None
        assert (target.last_upload.found_bytes, target.last_upload.sent_bytes) == (0, 8 * MIB)


def test_upload_into_a_folder_that_is_gone(target: RemoteTarget, file: Path) -> None:
    with pytest.raises(TargetError, match="gone") as caught:
        target.upload(file, "file.bin", f"{target.home}/absent")
    assert caught.value.outcome == "LOST"


def test_other_host_key_after_a_break_is_refused(relay: Relay, made: Board, file: Path) -> None:
    """Someone takes the board's place in mid-upload."""
    with board("sshd") as other:
        target = open_target(made.url(port=relay.port))
        with target:
            relay._port, ours = other.port, relay._port
            relay.cut_at(3 * MIB)
            with pytest.raises(HostKeyError, match="CHANGED"):
                target.upload(file, "file.bin")
            relay._port = ours


@pytest.mark.parametrize("stage", ["sending", "checking"])
def test_stalled_link_is_a_timeout(
    stage: str, target: RemoteTarget, relay: Relay, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_impatient(monkeypatch)
    opened: list[Stream] = []
    usual = target._link.open

    def open_and_stall(line: str) -> Stream:
        """The file goes through the first stream of an upload, the check of what arrived through the second."""
        opened.append(usual(line))
        if stage == "sending":
            threading.Timer(0.02, relay.stall).start()
        elif len(opened) > 1:
            relay.stall()
        return opened[-1]

    monkeypatch.setattr(target._link, "open", open_and_stall)
    started = time.monotonic()
    try:
        with pytest.raises(TargetError) as caught:  # noqa: PT012 - one of them is under way when the link stalls
            while True:
                target.upload(file, "file.bin")
        assert caught.value.outcome == "TIMEOUT"
        assert time.monotonic() - started < 30
    finally:
        relay._flowing.set()  # or what is on the device could not be removed


def test_frozen_server_is_a_timeout(made: Board, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_target(made.url())
    with target:
        channel = target.start(["cat"])
        channel.send(b"x")
        assert channel.receive(20) == b"x"
        be_impatient(monkeypatch)
        frozen = made.servers()
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        try:
            for attempt in (
                lambda: channel.receive(1),
                lambda: target.upload(file, "file.bin"),
                lambda: open_target(made.url()).__enter__(),
            ):
                started = time.monotonic()
                with pytest.raises(TargetError) as caught:
                    attempt()
                assert caught.value.outcome == "TIMEOUT"
                assert time.monotonic() - started < 30
        finally:
            for process in frozen:
                process.send_signal(signal.SIGCONT)


def test_broken_link_leaves_nothing(target: RemoteTarget, made: Board, relay: Relay) -> None:
    """The program does not heed its input: leaving ends it over a new connection."""
    channel = target.start(["sleep", "1000"])
    while not any("sleep" in line for line in made.running()):
        time.sleep(0.02)
    relay.cut()
    with pytest.raises(TargetError) as caught:
        channel.receive(20)
    assert caught.value.outcome == "LOST"
    with pytest.raises(TargetError) as caught:
        target.run(["true"], 20)
    assert caught.value.outcome == "LOST"
    target.__exit__(None, None, None)
    assert made.left_behind() == []
    assert made.programs() == []


def test_what_a_broken_link_left_is_removed_on_the_next_visit(target: RemoteTarget, made: Board, relay: Relay) -> None:
    target.start(["sleep", "1000"])
    relay.refusing = 100
    relay.cut()
    target.__exit__(None, None, None)
    assert len(made.left_behind()) == 1
    relay.refusing = 0
    with target:
        assert made.left_behind() == [target.folder]
        assert made.programs() == []


def test_full_disk(file: Path) -> None:
    with board("dropbear", disk="2m") as made, open_target(made.url()) as target:
        with pytest.raises(TargetError, match=r"8388608 bytes needed, \d+ free") as caught:
            target.upload(file, "file.bin")
        assert caught.value.outcome == "NO_SPACE"
        assert target.folder.startswith(str(made.home))
        assert [line for line in target.run(["ls", "-A"], 20)[1].split() if not line.startswith(b".pid-")] == []


def test_lossy_link(made: Board, file: Path) -> None:
    rule = f"tcp dport {made.port} numgen random mod 100 < 5 drop"
    table = f"edgeprune_test_{os.getpid()}"
    chain = "{ type filter hook input priority 0; }"
    setup = f"add table inet {table}\nadd chain inet {table} lossy {chain}\nadd rule inet {table} lossy {rule}\n"
    try:
        done = subprocess.run(["nft", "-f", "-"], input=setup, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        skip_or_fail("nft is missing (Debian: nftables)")
    if done.returncode != 0:
        skip_or_fail(f"nft: {done.stderr.strip()}")
    try:
        with open_target(made.url()) as target:
            assert Path(target.upload(file, "file.bin")).read_bytes() == file.read_bytes()
            assert run(target, "print('hello')") == b"hello\n"
    finally:
        subprocess.run(["nft", "delete", "table", "inet", table], check=True)


def test_nothing_secret_is_logged(server: Sshd, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Keys, arguments and contents do not appear in any log, at any level."""
    source = tmp_path / "source"
    source.write_bytes(b"the content is secret")
    with caplog.at_level(1), caplog.at_level(1, "paramiko"), open_target(server.url) as target:
        target.upload(source, "named-in-secret")
        target.run([target.python, "-c", "print('printed in secret')", "argued in secret"], 20)
    key = server.identity.read_text().splitlines()[1:-1]
    assert len(caplog.records) > 10  # it does log
    assert "secret" not in caplog.text
    assert not any(line in caplog.text for line in key)


def test_adb_link_breaks_in_mid_upload(file: Path) -> None:
    if why := missing():
        skip_or_fail(why)
    with AdbDevice() as device:
        target = open_target(device.url)
        assert isinstance(target, RemoteTarget)
        with target:
            device.cut_after = device.received + 3 * MIB
            path = target.upload(file, "file.bin")
            assert Path(path).read_bytes() == file.read_bytes()
            assert listing(target.folder) == ["file.bin"]
            assert target.last_upload is not None
            assert target.last_upload.reconnects == 1
            assert 0 < target.last_upload.resent_bytes < 8 * MIB
        assert list((device.folder / "tmp").iterdir()) == []
