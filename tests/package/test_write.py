from __future__ import annotations

import os
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.package import write
from edgeprune.package.base import File
from edgeprune.package.checksums import SUMS, sums
from edgeprune.package.write import ARCHIVES, MANIFEST, check_output, depfile, write_archive, write_folder
from tests.package.building import call

SCRIPT = File(b"#!/bin/sh\necho yes\n", executable=True)


KNOWN = File(b'{"schema": "edgeprune.package/1"}\n')


def package(**files: File) -> dict[str, File]:
    made = {MANIFEST: KNOWN, **{name.replace("__", "/"): file for name, file in files.items()}}
    return {**made, SUMS: File(sums({path: file.data for path, file in made.items()}).encode())}


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert write_folder(package(a=File(b"1"), b__c=SCRIPT), out) == (MANIFEST, "a", "b/c", SUMS)
    assert call(out / "b/c") == "yes\n"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert write_folder(package(a=File(b"1"), b__c=SCRIPT), out) == ()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert write_folder(package(a=File(b"2"), b__c=SCRIPT), out) == ("a", SUMS)
    assert (out / "a").read_bytes() == b"2"


def test_a_lost_permission_is_given_back(tmp_path: Path) -> None:
    write_folder(package(a=SCRIPT), tmp_path / "out")
    (tmp_path / "out/a").chmod(0o644)
    assert write_folder(package(a=SCRIPT), tmp_path / "out") == ("a",)
    assert os.access(tmp_path / "out/a", os.X_OK)


def test_what_an_earlier_package_had_goes_and_what_others_made_stays(tmp_path: Path) -> None:
    write_folder(package(a=File(b"1"), b__c__d=File(b"2")), tmp_path / "out")
    (tmp_path / "out/build").mkdir()
    (tmp_path / "out/build/a.o").write_bytes(b"3")
    assert write_folder(package(a=File(b"1")), tmp_path / "out") == ("b/c/d", SUMS)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [SUMS, "a", "build", MANIFEST]
    assert (tmp_path / "out/build/a.o").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageError, match="holds other files than a package"):
        write_folder(package(mine=File(b"1")), tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_folder_with_sums_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / SUMS).write_text(sums({"mine": b"precious"}))
    for known in (None, "[]", '{"schema": "other/1"}', "{"):
        if known is not None:
            (tmp_path / MANIFEST).write_text(known)
        with pytest.raises(UsageError, match="holds other files than a package"):
            write_folder(package(a=File(b"1")), tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


def test_what_was_cut_off_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, files = write.write_if_changed, package(a=File(b"1"), b=File(b"2"))

    def until_b(path: Path, file: File) -> bool:
        if path.name == "b":
            raise KeyboardInterrupt
        return real(path, file)

    monkeypatch.setattr(write, "write_if_changed", until_b)
    with pytest.raises(KeyboardInterrupt):
        write_folder(files, tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out" / SUMS).exists()
    assert write_folder(files, tmp_path / "out") == ("b", SUMS)


def test_empty_folders_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "out/src").mkdir(parents=True)
    check_output(tmp_path / "out")


def test_a_link_out_of_the_package_is_not_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write_folder(package(a=File(b"1"), b__c=File(b"2")), out)
    (out / "b/c").unlink()
    (out / "b").rmdir()
    elsewhere.mkdir()
    (elsewhere / "c").write_text("precious")
    (out / "b").symlink_to(elsewhere)
    for files in (package(a=File(b"1")), package(a=File(b"1"), b__c=File(b"3"))):  # neither removed nor written over
        with pytest.raises(UsageError, match="leads out of the package"):
            write_folder(files, out)
        assert (elsewhere / "c").read_text() == "precious"


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_archives_are_the_same_at_any_time(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = package(b__c=SCRIPT, a=File(b"1"))
    now = time.time()
    assert write_archive(files, tmp_path / f"one{suffix}", root="net-1.0.0")
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        other = dict(reversed(files.items()))
        assert write_archive(other, tmp_path / f"two{suffix}", root="net-1.0.0")
        assert not write_archive(other, tmp_path / f"two{suffix}", root="net-1.0.0")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_a_tar_archive_has_no_times_and_no_owners(tmp_path: Path) -> None:
    write_archive(package(b__c=SCRIPT, a=File(b"1")), tmp_path / "net.tar.gz", root="net-1.0.0")
    with tarfile.open(tmp_path / "net.tar.gz") as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == [
        "net-1.0.0/SHA256SUMS",
        "net-1.0.0/a",
        "net-1.0.0/b/c",
        "net-1.0.0/manifest.json",
    ]
    assert {(entry.mtime, entry.uid, entry.gid) for entry in entries} == {(0, 0, 0)}
    assert [entry.mode for entry in entries] == [0o644, 0o644, 0o755, 0o644]
    assert (tmp_path / "net.tar.gz").read_bytes()[4:8] == b"\0\0\0\0"  # gzip's own time


def test_the_given_time_is_in_it(tmp_path: Path) -> None:
    write_archive(package(a=File(b"1")), tmp_path / "net.tar", root="net", epoch=1_700_000_000)
    write_archive(package(a=File(b"1")), tmp_path / "net.zip", root="net", epoch=1_700_000_000)
    with tarfile.open(tmp_path / "net.tar") as archive:
        assert {entry.mtime for entry in archive} == {1_700_000_000}
    with zipfile.ZipFile(tmp_path / "net.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}


def test_an_unpacked_archive_verifies(tmp_path: Path) -> None:
    write_archive(package(b__c=SCRIPT, a=File(b"1")), tmp_path / "net.tar.xz", root="net")
    call("tar", "xf", "net.tar.xz", cwd=tmp_path)
    assert call("sha256sum", "--check", "--quiet", SUMS, cwd=tmp_path / "net") == ""
    assert call(tmp_path / "net/b/c") == "yes\n"


def test_outputs_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(UsageError, match="is a file, and not an archive"):
        check_output(tmp_path / "file")
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path / "folder.tar")
    with pytest.raises(UsageError, match="is not the name of an archive"):
        write_archive({}, tmp_path / "net", root="net")


@pytest.mark.parametrize("name", ["x.rar", "x.tgz2", "x.7z", "x.gz", "x.tar.zst", "x.tar.bz2", "x.ZIP", "x.deb"])
def test_an_archive_that_cannot_be_made_does_not_become_a_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{name} looks like an archive of a kind that is not written") as caught:
        check_output(tmp_path / name)
    assert caught.value.hint == "name a folder, or an archive: .tar, .tar.gz, .tgz, .tar.xz, .zip"
    (tmp_path / name).mkdir()  # a folder that is there is one, whatever its name
    check_output(tmp_path / name)


@pytest.mark.parametrize("name", ["speech-1.2", "digits.model", "gz", ".gz"])
def test_a_dot_alone_makes_no_archive(name: str, tmp_path: Path) -> None:
    check_output(tmp_path / name)
    assert write_folder(package(a=SCRIPT), tmp_path / name) == (MANIFEST, "a", SUMS)


def test_make_reads_a_depfile_with_odd_paths(tmp_path: Path) -> None:
    odd = ["the run/a#b", "c$d", "e"]
    for path in odd:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "rule.d").write_text(depfile("the out/put", odd))
    (tmp_path / "Makefile").write_text("the\\ out/put:\n\t@echo made\ninclude rule.d\n")
    (tmp_path / "the out").mkdir()
    (tmp_path / "the out/put").write_text("")
    for path in odd:
        os.utime(tmp_path / path, (0, 0))
    assert "is up to date" in call("make", cwd=tmp_path)
    for path in odd:
        os.utime(tmp_path / "the out/put", (1000, 1000))
        os.utime(tmp_path / path, (2000, 2000))
        assert call("make", cwd=tmp_path) == "made\n"
        os.utime(tmp_path / path, (0, 0))
