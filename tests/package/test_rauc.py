"""RAUC makes a bundle of the input, signs it, and gives back what went in."""

from __future__ import annotations

import configparser
import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.package.rauc import RaucPackager
from tests.package.building import call, contents, follow_readme, model
from tests.package.firmware import FILES, NAME, blocks, model_data, packaged


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged("rauc:compatible=acme camera,slot=appfs", tmp_path_factory.mktemp("rauc"))


def _manifest(text: str) -> configparser.ConfigParser:
    manifest = configparser.ConfigParser(interpolation=None)
    manifest.read_string(text)
    return manifest


def test_manifest_names_the_image_and_its_digest(package: Path) -> None:
    manifest = _manifest((package / "input/manifest.raucm").read_text())
    image = (package / "input/models.tar").read_bytes()
    assert dict(manifest["update"]) == {"compatible": "acme camera", "version": "1.2.3"}
    assert dict(manifest["image.appfs"]) == {
        "filename": "models.tar",
        "sha256": hashlib.sha256(image).hexdigest(),
        "size": str(len(image)),
    }
    assert manifest["bundle"]["format"] == "verity"


def test_image_holds_the_models(package: Path) -> None:
    with tarfile.open(package / "input/models.tar") as archive:
        assert set(archive.getnames()) == {*FILES.values(), "manifest.json", "LICENSE"}
        for identifier, name in FILES.items():
            member = archive.extractfile(name)
            assert member is not None
            assert member.read() == model_data(identifier)


def _keys(folder: Path) -> None:
    made = ("-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2")
    call("openssl", "req", "-x509", *made, "-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    (folder / "keyring.pem").write_bytes((folder / "cert.pem").read_bytes())


def test_bundle_is_made_and_verified_as_the_readme_says(package: Path) -> None:
    _keys(package)
    said = follow_readme(package)
    assert "Compatible: \t'acme camera'" in said
    assert "Version:    \t'1.2.3'" in said
    assert "Bundle Format: \tverity" in said
    assert (package / f"{NAME}-1.2.3.raucb").is_file()


def test_bundle_of_a_small_model_is_plain_since_a_verity_one_cannot_be_made(tmp_path: Path) -> None:
    small = contents(model("tiny", b"tiny"))
    for path, file in RaucPackager().files(small).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(file.data)
    assert _manifest((tmp_path / "input/manifest.raucm").read_text())["bundle"]["format"] == "plain"
    _keys(tmp_path)
    call("rauc", "bundle", "--cert=cert.pem", "--key=key.pem", "input", "tiny.raucb", cwd=tmp_path)
    assert "'digits'" in call("rauc", "info", "--keyring=keyring.pem", "tiny.raucb", cwd=tmp_path)


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[list[str]]:
    """Three partitions: two roots, and one for models."""
    found: list[str] = []
    try:
        for name in ("root-a", "root-b", "models"):
            with (tmp_path / name).open("wb") as file:
                file.truncate(16 << 20)
            made = subprocess.run(
                ["losetup", "--find", "--show", tmp_path / name], capture_output=True, text=True, check=False
            )
            if made.returncode != 0:
                pytest.skip(f"no loop devices, which only root can make: {made.stderr.strip()}")
            found.append(made.stdout.strip())
        yield found
    finally:
        for device in found:
            call("losetup", "--detach", device)


def test_installs_on_a_device_with_the_slot_of_the_readme(package: Path, slots: list[str], tmp_path: Path) -> None:
    (slot,) = blocks(package, "ini")
    device = "/dev/disk/by-partlabel/appfs"
    assert device in slot
    assert "`compatible=acme camera`" in (package / "README.md").read_text()
    # dm-verity is not in every kernel: here the bundle is a plain one.
    shutil.copytree(package / "input", tmp_path / "input")
    manifest = tmp_path / "input/manifest.raucm"
    manifest.write_text(manifest.read_text().replace("format=verity", "format=plain"))
    _keys(tmp_path)
    call("rauc", "bundle", "--cert=cert.pem", "--key=key.pem", "input", "models.raucb", cwd=tmp_path)
    backend = tmp_path / "backend"
    backend.write_text("#!/bin/sh\ncase $1 in get-primary) echo A ;; get-state) echo good ;; esac\n")
    backend.chmod(0o755)
    (tmp_path / "system.conf").write_text(f"""\
[system]
compatible=acme camera
bootloader=custom
bundle-formats=plain verity
data-directory={tmp_path}
[handlers]
bootloader-custom-backend={backend}
[keyring]
path={tmp_path}/keyring.pem
[slot.rootfs.0]
device={slots[0]}
bootname=A
[slot.rootfs.1]
device={slots[1]}
bootname=B
{slot.replace(device, slots[2])}""")
    (tmp_path / "mount").mkdir()
    service = f"rauc --conf={tmp_path}/system.conf --mount={tmp_path}/mount --override-boot-slot=A service"
    script = f"""
export DBUS_STARTER_BUS_TYPE=session
{service} >{tmp_path}/service.log 2>&1 & service=$!
trap 'kill $service; wait $service' EXIT
for _ in $(seq 100); do rauc status >/dev/null 2>&1 && break; sleep 0.1; done
rauc install {tmp_path}/models.raucb"""
    said = call("dbus-run-session", "--", "sh", "-c", script)
    assert "succeeded" in said
    call("mount", "-o", "ro", slots[2], tmp_path / "mount")
    try:
        installed = {path.name: path for path in (tmp_path / "mount").iterdir() if path.is_file()}
        assert set(installed) == {*FILES.values(), "manifest.json", "LICENSE"}
        for identifier, name in FILES.items():
            assert installed[name].read_bytes() == model_data(identifier)
    finally:
        call("umount", tmp_path / "mount")


def test_image_says_the_epoch_and_no_other_time() -> None:
    files = RaucPackager().files(replace(contents(model("digits", b"data")), epoch=1_700_000_000))
    with tarfile.open(fileobj=io.BytesIO(files["input/models.tar"].data)) as archive:
        assert {member.mtime for member in archive} == {1_700_000_000}


@pytest.mark.parametrize(
    ("parameter", "value"), [("compatible", "a\nb"), ("compatible", "[x]"), ("slot", "Models"), ("slot", "a.b")]
)
def test_what_would_break_the_manifest_is_refused(parameter: str, value: str) -> None:
    with pytest.raises(UsageError, match="of RAUC"):
        registry.create("packagers", {"name": "rauc", parameter: value})
