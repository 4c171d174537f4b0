from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.package.build import build
from edgeprune.package.checksums import SUMS, SumsCheck, listed, sums, verify_sums
from edgeprune.package.tar import TarPackager
from edgeprune.package.write import write_folder
from tests.package.building import call, contents, model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(build(TarPackager(), contents(model("digits", b"digits"))), tmp_path)
    return tmp_path


def test_the_lines_are_those_of_sha256sum() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sums({"b/c": b"", "a": b""}) == f"{empty}  a\n{empty}  b/c\n"


def test_sha256sum_agrees(folder: Path) -> None:
    assert call("sha256sum", "--check", "--strict", "--quiet", SUMS, cwd=folder) == ""


def test_a_package_as_it_was(folder: Path) -> None:
    right = ("README.md", "manifest.json", "models/digits.onnx", "sbom.cdx.json")
    assert verify_sums(folder) == SumsCheck(right=right)
    assert verify_sums(folder).ok


def test_what_is_wrong_missing_and_unknown(folder: Path) -> None:
    (folder / "models/digits.onnx").write_bytes(b"Digits")
    (folder / "sbom.cdx.json").unlink()
    (folder / "models/other.onnx").write_bytes(b"")
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    check = verify_sums(folder)
    assert check.wrong == ("models/digits.onnx",)
    assert check.missing == ("README.md", "sbom.cdx.json")
    assert check.unlisted == ("models/other.onnx",)
    assert not check.ok


def test_an_empty_list_passes_nothing(tmp_path: Path) -> None:
    (tmp_path / SUMS).write_text("")
    assert not verify_sums(tmp_path).ok


def test_no_package_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no SHA256SUMS in"):
        verify_sums(tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up", "./a", "a//b"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / SUMS).write_text(f"{'0' * 64}  {path}\n")
    with pytest.raises(UsageError, match="is not a path below the folder"):
        listed(tmp_path)


@pytest.mark.parametrize("line", ["nonsense", f"{'0' * 63}  a", f"{'0' * 64} a", f"{'G' * 64}  a"])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / SUMS).write_text(f"{'0' * 64}  a\n{line}\n")
    with pytest.raises(UsageError, match="SHA256SUMS:2: not a line of sha256sum"):
        listed(tmp_path)


def test_a_path_that_comes_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / SUMS).write_text(f"{'0' * 64}  a\n{'1' * 64}  a\n")
    with pytest.raises(UsageError, match=":2: 'a' is not a path below the folder, once"):
        listed(tmp_path)
