"""The commands of a package's README, followed to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune import registry
from edgeprune.package.build import build
from edgeprune.package.checksums import verify_sums
from edgeprune.package.write import write_folder
from tests.package.building import call, contents, follow_readme, model, needs

SAID = "digits: 5000 bytes of onnx at a multiple of 16\nwords: 99 bytes of onnx at a multiple of 16\n"


def package(kind: str, folder: Path) -> Path:
    packager = registry.resolve("packagers", kind)()
    write_folder(build(packager, contents(model("digits", b"A" * 5000), model("words", b"B" * 99))), folder)
    return folder


def test_c(tmp_path: Path) -> None:
    needs(("make", "cc", "pkg-config", "sha256sum"))
    folder = package("c", tmp_path / "a package")
    said = follow_readme(folder, CFLAGS="-Wall -Wextra -Werror -pedantic")
    assert said.count(SAID) == 2  # the example, and what was linked as pkg-config says
    assert not verify_sums(folder).unlisted  # built beside the package: it is still what it was made as
    assert (tmp_path / "build-digits/libdigits.a").is_file()
    call("make", "clean", cwd=folder)
    assert {path.name for path in (tmp_path / "build-digits").iterdir()} == {"linked", "stage"}


def test_c_builds_where_it_is_told(tmp_path: Path) -> None:
    needs(("make", "cc"))
    folder = package("c", tmp_path / "package")
    call("make", "example", f"BUILD={tmp_path / 'elsewhere'}", cwd=folder)
    assert call(tmp_path / "elsewhere/example") == SAID
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "package"}
    assert not verify_sums(folder).unlisted


def test_c_installs_where_it_is_told(tmp_path: Path) -> None:
    needs(("make", "cc", "pkg-config"))
    folder = package("c", tmp_path / "package")
    call("make", "install", "PREFIX=/opt/models", f"DESTDIR={tmp_path / 'root'}", cwd=folder)
    config = tmp_path / "root/opt/models/lib/pkgconfig"
    assert call("pkg-config", "--modversion", "digits", PKG_CONFIG_PATH=str(config)) == "1.2.3\n"
    flags = call("pkg-config", "--cflags", "--libs", "digits", PKG_CONFIG_PATH=str(config)).split()
    call("cc", folder / "example/main.c", *flags, "-o", tmp_path / "program")
    assert call(tmp_path / "program") == SAID


def test_c_for_another_processor(tmp_path: Path) -> None:
    needs(("make", "arm-none-eabi-gcc", "arm-none-eabi-ar"))
    folder = package("c", tmp_path / "package")
    flags = "CFLAGS=-mcpu=cortex-m7 -mthumb -Wall -Wextra -Werror -pedantic"
    call("make", "CC=arm-none-eabi-gcc", "AR=arm-none-eabi-ar", flags, cwd=folder)
    symbols = call("arm-none-eabi-nm", "--defined-only", tmp_path / "build-digits/libdigits.a")
    assert {line.split()[-1] for line in symbols.splitlines() if " R " in line} == {
        "digits_data", "digits_size", "words_data", "words_size"
    }  # fmt: skip


def test_cmake(tmp_path: Path) -> None:
    needs(("cmake", "make", "cc", "sha256sum"))
    folder = package("cmake", tmp_path / "package")
    assert SAID in follow_readme(folder)
    assert not verify_sums(folder).unlisted
    root = tmp_path / "build-digits/root"
    assert (root / "share/digits/digits-config.cmake").is_file()
    found = (folder / "example", "-B", tmp_path / "found", f"-DCMAKE_PREFIX_PATH={root}")
    assert "Configuring done" in call("cmake", "-S", *found)


def test_tar(tmp_path: Path) -> None:
    needs(("sha256sum",))
    folder = package("tar", tmp_path / "package")
    assert follow_readme(folder) == ""
    assert (folder / "models/digits.onnx").read_bytes() == b"A" * 5000


@pytest.mark.parametrize("kind", ["c", "cmake", "tar"])
def test_a_changed_file_is_noticed(tmp_path: Path, kind: str) -> None:
    folder = package(kind, tmp_path / "package")
    with (folder / "manifest.json").open("a") as file:
        file.write(" ")
    with pytest.raises(AssertionError, match=r"manifest\.json: FAILED"):
        call("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=folder)
