"""mender-artifact reads, validates and signs the artifact; the Mender client installs it, and rolls it back."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.package.mender import MenderPackager
from tests.package.building import call, contents, follow_readme, model
from tests.package.firmware import FILES, NAME, checkers, model_data, packaged

ARTIFACT = f"{NAME}-1.2.3.mender"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged("mender", tmp_path_factory.mktemp("mender"))


def test_artifact_is_what_mender_artifact_reads(package: Path) -> None:
    call("mender-artifact", "validate", package / ARTIFACT)
    said = call("mender-artifact", "read", package / ARTIFACT)
    assert f"Name: {NAME}-1.2.3\n" in said
    assert "Version: 3\n" in said
    assert "Compatible devices: '[raspberry-pi-4b]'" in said
    assert f"data-partition.{NAME}.version: 1.2.3" in said
    assert f'Clears Provides: ["data-partition.{NAME}.*"]' in said


def test_signs_as_the_readme_says(package: Path) -> None:
    call("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", package / "private.pem")
    call("openssl", "ec", "-in", package / "private.pem", "-pubout", "-out", package / "public.pem")
    follow_readme(package)
    # A signed artifact that was changed is none: one byte of a model, and its digest no longer fits.
    data = (package / "signed.mender").read_bytes()
    some = model_data("digits")[:64]
    assert some in data
    (package / "signed.mender").write_bytes(data.replace(some, bytes(64)))
    verdict = call("sh", "-c", f"mender-artifact validate -k {package}/public.pem {package}/signed.mender || echo bad")
    assert "bad" in verdict
    assert "update.tar: invalid checksum" in verdict


def test_artifact_is_laid_out_as_a_stream(package: Path) -> None:
    with tarfile.open(package / ARTIFACT) as archive:
        assert archive.getnames() == ["version", "manifest", "header.tar", "data/0000.tar"]
        assert {member.mtime for member in archive} == {0}


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A program that is the Mender client of a device of ours, whose modules and state lie in a folder."""
    mender = checkers().parent / "mender"
    if not (mender / "usr/bin/mender").is_file():
        pytest.skip("no Mender client: scripts/test unpacks Debian's mender-client beside the checkers")
    state = tmp_path / "state"
    state.mkdir()
    (state / "device_type").write_text("device_type=raspberry-pi-4b\n")
    (tmp_path / "mender.conf").write_text('{"RootfsPartA": "/dev/null", "RootfsPartB": "/dev/null"}')
    # It looks at these very places for its modules and for what the factory installed: they are folders of its own.
    shell = f"""
for place in /etc /usr/share /var/lib; do mount -t tmpfs none $place; done
mkdir -p /etc/mender /usr/share/mender/modules /var/lib/mender
cp -r {mender}/usr/share/mender/modules/v3 /usr/share/mender/modules/
echo artifact_name=factory >/etc/mender/artifact_info
exec {mender}/usr/bin/mender --config {tmp_path}/mender.conf --data {state} --no-syslog "$@"
"""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mender").write_text(
        f"#!/bin/sh\nexec unshare --mount --map-root-user sh -euc '{shell}' mender \"$@\"\n"
    )
    (tmp_path / "bin/mender").chmod(0o755)
    return tmp_path / "bin/mender"


def _packaged(folder: Path, device: Path, version: str) -> Path:
    path = packaged(f"mender:directory={device}/{{name}}", folder, version=version)
    return path / f"{NAME}-{version}.mender"


def test_client_installs_commits_and_rolls_back(client: Path, tmp_path: Path) -> None:
    # The path is written into the artifact: as short as pytest allows, and of the characters that are taken.
    models = tmp_path / "data" / NAME
    first, second = (_packaged(tmp_path / version, tmp_path / "data", version) for version in ("1.2.3", "1.3.0"))
    call(client, "install", first)
    call(client, "commit")
    assert {path.name for path in models.iterdir()} == {*FILES.values(), "manifest.json", "LICENSE"}
    for identifier, name in FILES.items():
        assert (models / name).read_bytes() == model_data(identifier)
    assert f"data-partition.{NAME}.version=1.2.3" in call(client, "show-provides")

    call(client, "install", second)
    assert json.loads((models / "manifest.json").read_text())["version"] == "1.3.0"
    call(client, "rollback")
    assert json.loads((models / "manifest.json").read_text())["version"] == "1.2.3"
    assert f"data-partition.{NAME}.version=1.2.3" in call(client, "show-provides")


def test_client_of_another_type_refuses_it(client: Path, package: Path, tmp_path: Path) -> None:
    (tmp_path / "state/device_type").write_text("device_type=another\n")
    said = call("sh", "-c", f"{client} install {package / ARTIFACT} || echo refused")
    assert "refused" in said
    assert "not compatible" in said
    assert not Path("/data/edgeprune").exists()


def test_device_types_are_those_given() -> None:
    packager = MenderPackager(device_type="raspberrypi4|raspberrypi3")
    readme = packager.files(contents(model("digits", b"data")))["README.md"].data.decode()
    assert "`raspberrypi4` or `raspberrypi3`" in readme


@pytest.mark.parametrize(
    ("profiles", "message"),
    [([None], "none is known"), (["a b"], "none is known"), (["pi-4", "pi-5"], "measured on pi-4 and pi-5")],
)
def test_device_type_has_to_be_said_where_measuring_did_not(profiles: list[str | None], message: str) -> None:
    known = [model(f"digits_{index}", b"data") for index in range(len(profiles))]
    devices = [{} if profile is None else {"profile": profile} for profile in profiles]
    models = [replace(one, lock=replace(one.lock, device=on)) for one, on in zip(known, devices, strict=True)]
    with pytest.raises(UsageError, match=message) as caught:
        MenderPackager().files(contents(*models))
    assert "mender:device_type=" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("device_type", "pi|"),
        ("device_type", 'pi"'),
        ("directory", "/"),
        ("directory", "/data"),
        ("directory", "models/here"),
        ("directory", "/data/../etc"),
        ("directory", "/data/my models"),
        ("directory", "/data/$(reboot)"),
    ],
)
def test_what_would_harm_the_device_is_refused(parameter: str, value: str) -> None:
    with pytest.raises(UsageError, match=r"device type of Mender|folder for models"):
        registry.create("packagers", {"name": "mender", parameter: value})
