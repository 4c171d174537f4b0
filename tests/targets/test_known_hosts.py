"""The known_hosts format, against ssh-keygen's own reading of it."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from edgeprune.errors import HostKeyError
from edgeprune.targets.known_hosts import HostKey, add, check, host_name, read, state_of

ONE, TWO = HostKey("ssh-ed25519", b"one"), HostKey("ssh-ed25519", b"two")
LINE_ONE, LINE_TWO = (f"{key.algorithm} {base64.b64encode(key.blob).decode()}" for key in (ONE, TWO))


def listed(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "known_hosts"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_fingerprint_is_unpadded_base64_of_sha256() -> None:
    assert HostKey("ssh-ed25519", b"").fingerprint == "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"


def test_names() -> None:
    assert host_name("board", 22) == "board"
    assert host_name("board", 2222) == "[board]:2222"


@pytest.mark.parametrize(
    ("patterns", "name", "state"),
    [
        ("board", "board", "known"),
        ("board", "BOARD", "known"),
        ("board", "board2", "unknown"),
        ("other,board", "board", "known"),
        ("*.lab", "pi.lab", "known"),
        ("pi?.lab", "pi7.lab", "known"),
        ("*.lab,!pi.lab", "pi.lab", "unknown"),
        ("[board]:2222", "[board]:2222", "known"),
        ("board", "[board]:2222", "unknown"),
        ("[a-z]oard", "board", "unknown"),
    ],
)
def test_patterns(tmp_path: Path, patterns: str, name: str, state: str) -> None:
    assert state_of(read([listed(tmp_path, f"{patterns} {LINE_ONE}")]), name, ONE)[0] == state


def test_states(tmp_path: Path) -> None:
    entries = read([listed(tmp_path, "# comment", "", "nonsense", f"board {LINE_ONE}", "x ssh-ed25519 ???")])
    assert [entry.line for entry in entries] == [4]
    assert state_of(entries, "board", ONE)[0] == "known"
    assert state_of(entries, "board", TWO)[0] == "changed"
    assert state_of(entries, "other", TWO)[0] == "unknown"
    assert read([tmp_path / "absent"]) == ()


def test_revoked_wins_over_known(tmp_path: Path) -> None:
    entries = read([listed(tmp_path, f"board {LINE_ONE}", f"@revoked * {LINE_ONE}")])
    assert state_of(entries, "board", ONE)[0] == "revoked"
    with pytest.raises(HostKeyError, match="revoked"):
        check(entries, "board", ONE, target="ssh://board")


def test_certificate_authority_is_no_host_key(tmp_path: Path) -> None:
    entries = read([listed(tmp_path, f"@cert-authority * {LINE_ONE}")])
    assert state_of(entries, "board", ONE)[0] == "unknown"


def test_add_replaces_this_host_only(tmp_path: Path) -> None:
    path = listed(
        tmp_path,
        "# mine",
        "",
        f"board,other {LINE_ONE}",
        f"board {LINE_ONE}",
        f"@revoked * {LINE_ONE}",
        f"third {LINE_ONE}",
    )
    add(path, "board", TWO)
    assert path.read_text().splitlines() == [
        "# mine",
        "",
        f"other {LINE_ONE}",
        f"@revoked * {LINE_ONE}",
        f"third {LINE_ONE}",
        f"board {LINE_TWO}",
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["known_hosts"]


def test_add_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "ssh" / "known_hosts"
    add(path, "board", ONE)
    assert path.read_text() == f"board {LINE_ONE}\n"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
