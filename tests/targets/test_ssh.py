"""The ssh target against a real OpenSSH server: the contract, strict host keys, the ways in and through."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest

from edgeprune.errors import HostKeyError, TargetError, UsageError
from edgeprune.targets.base import Target
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd
from edgeprune.testing.targets import TargetContract, run

HELLO = "print('hello')"


class TestSsh(TargetContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: Sshd) -> None:
        self.url = server.url

    def make(self) -> Target:
        return open_target(self.url)


def test_name_has_no_options(server: Sshd) -> None:
    assert open_target(server.url).name == f"ssh://{server.user}@127.0.0.1:{server.port}"


def test_ssh_config_is_honoured(server: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host Board\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.identity}\n  IdentitiesOnly yes\n  UserKnownHostsFile {server.known_hosts}\n"
    )
    with open_target("ssh://Board", config=config, python=sys.executable) as target:
        assert target.name == f"ssh://{server.user}@Board:{server.port}"
        assert run(target, HELLO) == b"hello\n"


def test_included_files_of_the_config(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to ~/.ssh, with patterns; what follows an Include belongs to where it stands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".ssh" / "config.d"
    folder.mkdir(parents=True)
    (folder / "10-board").write_text(f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n")
    (folder / "20-keys").write_text(f"Host b*\n  IdentityFile {server.identity}\n")
    (tmp_path / "hosts").write_text(f"UserKnownHostsFile {server.known_hosts}\n")
    (tmp_path / ".ssh" / "config").write_text(
        f"include config.d/* config.d/none*\nUser {server.user}\nHost board\n  Include ~/hosts\nHost other\n  Port 1\n"
    )
    with open_target("ssh://board", python=sys.executable) as target:
        assert target.name == f"ssh://{server.user}@board:{server.port}"
        assert run(target, HELLO) == b"hello\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Include {self}\n", "too deep"),
        ("Host board\n  Include {other}\n", "put the Include before the first Host"),
        ("Match exec true\n  Port 1\n", "Match exec"),
        ('Host "board\n  Port 1\n', "board"),
    ],
)
def test_config_that_cannot_be_followed(text: str, why: str, tmp_path: Path) -> None:
    config, other = tmp_path / "config", tmp_path / "other"
    other.write_text("Host board\n  Port 1\n")
    config.write_text(text.format(self=config, other=other))
    with pytest.raises(UsageError) as caught:
        open_target("ssh://board", config=config)
    assert why in f"{caught.value.message} {caught.value.hint}"


def test_proxy_jump_checks_both_hosts(server: Sshd, tmp_path: Path) -> None:
    with Sshd() as inner:
        known = tmp_path / "known"
        config = tmp_path / "config"
        config.write_text(
            f"Host inner\n  HostName 127.0.0.1\n  Port {inner.port}\n"
            f"  ProxyJump {server.user}@127.0.0.1:{server.port}\n"
            f"  IdentityFile {inner.identity}\n"
            f"Host 127.0.0.1\n  IdentityFile {server.identity}\n"
            f"Host *\n  User {server.user}\n  UserKnownHostsFile {known}\n"
        )

        def attempt() -> bytes:
            with open_target("ssh://inner", config=config, python=sys.executable) as target:
                return run(target, HELLO)

        with pytest.raises(HostKeyError, match=str(server.port)):
            attempt()
        known.write_text(server.known_hosts.read_text())
        with pytest.raises(HostKeyError, match=str(inner.port)):
            attempt()
        known.write_text(server.known_hosts.read_text() + inner.known_hosts.read_text())
        assert attempt() == b"hello\n"


def test_proxy_command(server: Sshd, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while d := os.read(0, 65536): s.sendall(d)\n"
        "    os._exit(0)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while d := s.recv(65536): os.write(1, d)\n"
    )
    command = shlex.join([sys.executable, str(relay)])
    config = tmp_path / "config"
    config.write_text(f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n  ProxyCommand {command} %h %p\n")
    target = open_target(
        "ssh://board", config=config, python=sys.executable, identity=server.identity, known_hosts=server.known_hosts
    )
    with target:
        assert run(target, HELLO) == b"hello\n"
    broken = tmp_path / "broken"
    broken.write_text("Host board\n  ProxyCommand /bin/false\n")
    with pytest.raises(TargetError, match="board:22") as caught:
        open_target("ssh://board", config=broken).__enter__()
    assert caught.value.outcome in {"LOST", "TIMEOUT"}


def test_unreachable_hosts_say_so() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(TargetError, match="refused") as caught:
            open_target(f"ssh://me@127.0.0.1:{port}").__enter__()
    assert caught.value.outcome == "LOST"
    with pytest.raises(TargetError, match="no such host"):
        open_target("ssh://me@no-such-host.invalid").__enter__()


def test_something_else_than_ssh_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.targets.ssh_link._CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(TargetError) as caught:
        open_target(f"ssh://me@127.0.0.1:{mute.getsockname()[1]}").__enter__()
    assert caught.value.outcome in {"LOST", "TIMEOUT"}


def test_no_interpreter_on_the_device(server: Sshd) -> None:
    with pytest.raises(TargetError, match="there is no /no/python") as caught:
        open_target(server.url, python="/no/python").__enter__()
    assert caught.value.outcome == "NO_RUNTIME"


def test_first_interpreter_of_the_path(server: Sshd) -> None:
    address = server.url.partition("?")[0]
    with open_target(address, identity=server.identity, known_hosts=server.known_hosts) as target:
        assert target.python.startswith("/")
        assert run(target, HELLO) == b"hello\n"


def test_full_device_has_no_space(small_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(4 << 20))
    with Sshd({"TMPDIR": str(small_disk)}) as server, open_target(server.url) as target:
        assert target.folder.startswith(str(small_disk))
        with pytest.raises(TargetError, match=r"4194304 bytes needed, \d+ free") as caught:
            target.upload(source, "big")
        assert caught.value.outcome == "NO_SPACE"


def test_broken_link_is_lost(own_server: Sshd) -> None:
    with open_target(own_server.url) as target:
        channel = target.start(["cat"])  # it ends with its input
        threading.Timer(0.3, own_server.drop_connections).start()
        with pytest.raises(TargetError) as caught:
            channel.receive(20)
        assert caught.value.outcome == "LOST"
        with pytest.raises(TargetError, match="connection is lost"):
            target.start(["true"])
        shutil.rmtree(target.folder)  # nobody can on a broken link, but an agent would have


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ssh://me:secret@board", "password"),
        ("ssh://board/path", "not the address"),
        ("ssh://board:99999", "Port"),
        ("ssh://board?colour=red", "unknown option 'colour'"),
        ("ssh://-oProxyCommand=x", "user and host name"),
        ("ssh://me;id@board", "user and host name"),
        ("board", "did you mean ssh://board"),
        ("telnet://board", "not a target"),
        ("local://?identity=x", "unknown option 'identity'"),
        ("", "not a target"),
    ],
)
def test_bad_addresses(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_target(text)
    assert why in f"{caught.value.message} {caught.value.hint}"
    assert "secret" not in caught.value.message


def test_options_of_another_target_are_refused() -> None:
    with pytest.raises(UsageError, match="identity"):
        open_target("local", identity="x")
    assert open_target("local", python=None).name == "local"


def test_a_folder_that_cannot_be_removed_is_told(
    server: Sshd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "rm").write_text("#!/bin/sh\necho 'rm: Read-only file system' >&2\nexit 1\n")
    (programs / "rm").chmod(0o755)
    with Sshd({"PATH": f"{programs}:{os.environ['PATH']}"}) as mine, open_target(mine.url) as target:
        folder = target.folder
    assert f"{folder} stays there, remove it by hand: rm: Read-only file system" in caplog.text
    shutil.rmtree(folder)
