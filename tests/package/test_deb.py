"""The Debian package is read, judged, installed and removed by Debian's own programs, in a root of its own."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.package.base import Contents
from edgeprune.package.deb import DebPackager
from tests.package.building import call, contents, follow_readme, model
from tests.package.firmware import FILES, LICENCE, NAME, model_data, packaged

DEB = f"{NAME}_1.2.3_all.deb"
FOLDER = f"usr/share/edgeprune/{NAME}"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        return packaged("deb:maintainer=Jane Doe <jane@acme.io>", tmp_path_factory.mktemp("deb"))


def test_control_file_says_what_it_is(package: Path) -> None:
    fields = call("dpkg-deb", "--field", package / DEB)
    assert f"Package: {NAME}\nVersion: 1.2.3\n" in fields
    assert "Architecture: all\nMulti-Arch: foreign\nMaintainer: Jane Doe <jane@acme.io>\n" in fields
    for name in FILES.values():
        assert f"\n  * {name}, 20001 bytes, sha256\n" in fields


def test_members_are_of_root_and_of_the_given_time(package: Path) -> None:
    lines = call("dpkg-deb", "--contents", package / DEB, TZ="UTC").splitlines()
    assert {tuple(line.split()[1:2] + line.split()[3:5]) for line in lines} == {("root/root", "2023-11-14", "22:13")}
    assert {line.split()[0] for line in lines} == {"drwxr-xr-x", "-rw-r--r--"}
    assert call("ar", "t", package / DEB).split() == ["debian-binary", "control.tar.gz", "data.tar.gz"]


def test_lintian_finds_nothing_but_how_the_changelog_is_compressed(package: Path) -> None:
    # Stored and not compressed, so that the bytes do not depend on the version of zlib.
    told = "changelog-not-compressed-with-max-compression"
    options = ("--no-cfg", "--display-info", "--pedantic", "--fail-on=error,warning,info,pedantic", "--allow-root")
    said = call("lintian", *options, f"--suppress-tags={told}", package / DEB)
    assert said.strip() == ""


def _root(folder: Path) -> dict[str, str]:
    """An empty system, and a `dpkg` before all others that works there: the README's commands stand as they are."""
    root, programs = folder / "root", folder / "bin"
    for name in ("updates", "info", "triggers"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    programs.mkdir()
    options = f"--root={root} --log={folder}/log --force-not-root --force-bad-path"
    (programs / "dpkg").write_text(f'#!/bin/sh\nexec /usr/bin/dpkg {options} "$@"\n')
    (programs / "dpkg").chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}"}


def test_installs_and_removes_as_the_readme_says(package: Path, tmp_path: Path) -> None:
    root = _root(tmp_path)
    said = follow_readme(package, **root)
    assert f"/{FOLDER}/digits_2.onnx" in said
    assert not (tmp_path / "root" / FOLDER).exists()


def test_installed_models_are_those_of_the_runs(package: Path, tmp_path: Path) -> None:
    root = _root(tmp_path)
    call("dpkg", "--install", package / DEB, **root)
    installed = tmp_path / "root" / FOLDER
    assert {path.name for path in installed.iterdir()} == {*FILES.values(), "manifest.json"}
    for identifier, name in FILES.items():
        assert (installed / name).read_bytes() == model_data(identifier)
    documents = tmp_path / "root/usr/share/doc" / NAME
    assert (documents / "copyright").read_text() == LICENCE
    assert gzip.decompress((documents / "changelog.gz").read_bytes()).startswith(f"{NAME} (1.2.3)".encode())
    assert call("dpkg", "--verify", NAME, **root) == ""
    (installed / "digits.onnx").write_bytes(b"another")
    verified = call("sh", "-c", f"dpkg --verify {NAME} || true", **root)
    assert f"/{FOLDER}/digits.onnx" in verified


def test_a_newer_version_replaces_the_older(package: Path, tmp_path: Path) -> None:
    root = _root(tmp_path)
    newer = packaged("deb", tmp_path / "newer", version="1.10.0") / f"{NAME}_1.10.0_all.deb"
    call("dpkg", "--install", package / DEB, **root)
    call("dpkg", "--install", newer, **root)
    assert call("dpkg-query", f"--admindir={tmp_path}/root/var/lib/dpkg", "-W").split() == [NAME, "1.10.0"]
    call("dpkg", "--compare-versions", "1.10.0", "gt", "1.2.3")


def test_name_of_one_letter_is_refused() -> None:
    one: Contents = replace(contents(model("x", b"data")), name="x")
    with pytest.raises(UsageError, match="cannot have the name 'x'") as caught:
        DebPackager().files(one)
    assert "--name" in (caught.value.hint or "")


@pytest.mark.parametrize("maintainer", ["Jane", "jane@acme.io", "A <b@c>\nDepends: evil", "A, B <a@b.c>", ""])
def test_what_is_no_maintainer_is_refused(maintainer: str) -> None:
    with pytest.raises(UsageError, match="is not a maintainer"):
        registry.create("packagers", {"name": "deb", "maintainer": maintainer})
