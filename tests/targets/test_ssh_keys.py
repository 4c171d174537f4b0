"""Host keys and keys: whom the ssh target trusts, and who is let in, against a real OpenSSH server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgeprune.errors import HostKeyError, TargetError, UsageError
from edgeprune.pipeline.device import HostKeyOffer, trust
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd
from edgeprune.testing.targets import run

HELLO = "print('hello')"


def test_unknown_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    target = open_target(server.url, known_hosts=tmp_path / "none")
    with pytest.raises(HostKeyError) as caught:
        target.__enter__()
    assert f"ssh-ed25519 {server.fingerprint}" in caught.value.message
    assert "not known" in caught.value.message
    assert "edgeprune device trust 'ssh://" in str(caught.value.hint)
    assert caught.value.exit_code == 3


def test_changed_host_key_is_refused_with_both_fingerprints(own_server: Sshd) -> None:
    old = own_server.fingerprint
    with open_target(own_server.url) as target:
        assert run(target, HELLO) == b"hello\n"
    own_server.change_host_key()
    assert own_server.fingerprint != old
    with pytest.raises(HostKeyError, match="CHANGED") as caught:
        open_target(own_server.url).__enter__()
    assert f"offers ssh-ed25519 {own_server.fingerprint}" in caught.value.message
    assert f"known is ssh-ed25519 {old} ({own_server.known_hosts}:1)" in caught.value.message
    assert "edgeprune device trust" in str(caught.value.hint)


def test_trust_shows_asks_and_writes(own_server: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "new" / "known_hosts"
    shown: list[HostKeyOffer] = []

    def answer(yes: bool, offer: HostKeyOffer) -> bool:
        shown.append(offer)
        return yes

    refused = trust(own_server.url, lambda offer: answer(False, offer), known_hosts=known)
    assert (refused.state, refused.written, known.exists()) == ("unknown", False, False)
    accepted = trust(own_server.url, lambda offer: answer(True, offer), known_hosts=known)
    assert accepted.written
    assert [offer.fingerprint for offer in shown] == [own_server.fingerprint] * 2
    assert accepted.host == f"[127.0.0.1]:{own_server.port}"
    with open_target(own_server.url, known_hosts=known) as target:
        assert run(target, HELLO) == b"hello\n"

    old = own_server.fingerprint
    own_server.change_host_key()
    changed = trust(own_server.url, lambda offer: answer(True, offer), known_hosts=known)
    assert changed.state == "changed"
    assert changed.known == (f"{old} ({known}:1)",)
    assert len(known.read_text().splitlines()) == 1
    with open_target(own_server.url, known_hosts=known) as target:
        assert run(target, HELLO) == b"hello\n"
    assert trust(own_server.url, lambda offer: pytest.fail("asked again"), known_hosts=known).state == "known"
    assert trust(own_server.url, lambda offer: False, known_hosts=known).to_json()["written"] is False


def test_known_hosts_of_ssh_keygen_is_understood(server: Sshd, tmp_path: Path) -> None:
    hashed = tmp_path / "hashed"
    shutil.copy(server.known_hosts, hashed)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", hashed], check=True, capture_output=True)
    assert hashed.read_text().startswith("|1|")
    with open_target(server.url, known_hosts=hashed) as target:
        assert run(target, HELLO) == b"hello\n"


def test_other_kind_of_key_known_first(tmp_path: Path) -> None:
    """Of a host with several keys the known one is asked for, or it would look changed."""
    kinds = ("ed25519", "ecdsa", "rsa")
    with Sshd(kinds=kinds) as server:
        for kind in kinds:
            known = tmp_path / kind
            known.write_text(f"[127.0.0.1]:{server.port} {(server.folder / f'host_{kind}.pub').read_text()}")
            with open_target(server.url, known_hosts=known) as target:
                assert run(target, HELLO) == b"hello\n"


def test_wrong_key_is_refused_with_what_was_tried(server: Sshd, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    with pytest.raises(TargetError, match=f"tried: {other}") as caught:
        open_target(server.url, identity=other).__enter__()
    assert "ssh-copy-id" in str(caught.value.hint)


def test_key_with_passphrase_says_ssh_add(server: Sshd, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret words", "-f", locked], check=True)
    with pytest.raises(TargetError, match="passphrase: ssh-add"):
        open_target(server.url, identity=locked).__enter__()


def test_key_from_the_agent(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IdentitiesOnly is not set and no identity is given: the agent's keys are tried."""
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            if (tmp_path / "agent").exists():
                break
            threading.Event().wait(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-add", "-q", server.identity], check=True, capture_output=True)
        config = tmp_path / "config"
        config.write_text(f"Host *\n  UserKnownHostsFile {server.known_hosts}\n")
        address = f"ssh://{server.user}@127.0.0.1:{server.port}?python={sys.executable}"
        with open_target(address, config=config) as target:
            assert run(target, HELLO) == b"hello\n"
        with config.open("a") as file:
            file.write("  IdentityAgent none\n")
        monkeypatch.setenv("HOME", str(tmp_path))  # whoever tests may have keys that fit
        with pytest.raises(TargetError, match="no key was found"):
            open_target(address, config=config).__enter__()
    finally:
        agent.terminate()
        agent.wait()


def test_another_agent_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "ours"))
    config = tmp_path / "config"
    config.write_text("Host board\n  IdentityAgent ~/.other/agent.sock\n")
    with pytest.raises(UsageError, match=r"IdentityAgent \S*/.other/agent.sock: .*SSH_AUTH_SOCK") as caught:
        open_target("ssh://board", config=config).__enter__()
    assert "SSH_AUTH_SOCK=" in str(caught.value.hint)
