"""The device commands: profiles, probing this machine, and trusting a real SSH server's key."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from edgeprune.cli.main import run_cli
from edgeprune.testing.sshd import Sshd, sshd_missing


def test_list_names_every_profile_that_show_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["device", "list", "--json"]) == 0
    names = [profile["name"] for profile in json.loads(capsys.readouterr().out)["profiles"]]
    assert {"host", "raspberry-pi-zero-2-w", "raspberry-pi-5", "jetson-orin-nano", "android-arm64"} <= set(names)
    assert run_cli(["device", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names
    for name in names:
        assert run_cli(["device", "show", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["name"] == name


def test_show_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["device", "show", "raspberry-pi-4b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "title: Raspberry Pi 4 Model B" in lines
    assert any(line.startswith("  - ") for line in lines)
    assert "None" not in " ".join(lines)


def test_a_misspelt_profile_is_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["device", "show", "raspberry-pi-4"]) == 2
    assert "did you mean 'raspberry-pi-4b'?" in capsys.readouterr().err


def test_the_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["device", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"nmae": "board"}, schema)


def test_probe_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["device", "probe", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["machine"]["cpus"] == os.cpu_count()
    assert seen["can_measure"] is True
    assert seen["target"] == "local"
    assert run_cli(["device", "probe", "local"]) == 0
    assert f"  cpus: {os.cpu_count()}" in capsys.readouterr().out.splitlines()


def test_probe_says_a_difference_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "board.yaml").write_text("name: board\ncores: [{count: 999, name: Z80}]\nram: 1KiB\n")
    assert run_cli(["device", "probe", "local", "--profile", str(tmp_path / "board.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = lines[lines.index("differences:") + 1 :]
    assert f"  - processors: {os.cpu_count()} here, 999 in the profile" in found
    assert found[-1].endswith(" bytes here, 1024 in the profile")


def test_trust_needs_a_host_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["device", "trust", "local"]) == 2
    assert "no host key to trust" in capsys.readouterr().err


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    if missing := sshd_missing():
        pytest.skip(missing)
    with Sshd() as running:
        yield running


@pytest.fixture
def trust(server: Sshd, tmp_path: Path) -> list[str]:
    target = f"ssh://{server.user}@127.0.0.1:{server.port}"
    return ["device", "trust", target, "--known-hosts", str(tmp_path / "known_hosts")]


def test_nothing_is_trusted_where_nobody_can_confirm(
    trust: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115  closed with the test
    assert run_cli(trust) == 2
    err = capsys.readouterr().err
    assert "ssh-ed25519 SHA256:" in err
    assert f"edgeprune device trust {trust[2]} --fingerprint SHA256:" in err
    assert not (tmp_path / "known_hosts").exists()


def test_another_fingerprint_is_refused(trust: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([*trust, "--fingerprint", "SHA256:other"]) == 3
    assert ", not SHA256:other" in capsys.readouterr().err
    assert not (tmp_path / "known_hosts").exists()


def test_the_right_fingerprint_is_remembered(
    trust: list[str], server: Sshd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = server.host_key.with_suffix(".pub").read_text().split()[1]
    fingerprint = _fingerprint(public)
    assert run_cli([*trust, "--fingerprint", fingerprint, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["written"], data["trusted"], data["state"]) == (True, True, "unknown")
    assert (tmp_path / "known_hosts").read_text() == f"[127.0.0.1]:{server.port} ssh-ed25519 {public}\n"
    assert run_cli(trust) == 0
    assert "is trusted already" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "code", "trusted"), [(True, 0, True), (False, 3, False)])
def test_a_person_is_asked(  # noqa: PLR0917
    answer: bool,
    code: int,
    trusted: bool,
    trust: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda *_, **__: answer)
    assert run_cli(trust) == code
    assert "offers ssh-ed25519 SHA256:" in capsys.readouterr().err
    assert (tmp_path / "known_hosts").exists() == trusted


def _fingerprint(public: str) -> str:
    import base64
    import hashlib

    digest = hashlib.sha256(base64.b64decode(public)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
