from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.package.archives import ar_archive, stored_gzip, tar_archive, zip_archive
from edgeprune.package.base import File
from tests.package.building import call

FILES = {"b/run": File(b"#!/bin/sh\n", executable=True), "a": File(b"odd"), "b/c/d": File(b"")}
EPOCH = 1_700_000_000


def test_tar_is_sorted_and_of_root_and_of_the_given_time() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_archive(FILES, EPOCH))) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == ["a", "b/c/d", "b/run"]
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "root", "root", EPOCH)}
        assert [member.mode for member in members] == [0o644, 0o644, 0o755]
        opened = archive.extractfile("a")
        assert opened is not None
        assert opened.read() == b"odd"


def test_tar_has_folders_and_a_root_where_asked(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_archive(FILES, EPOCH, root="./", folders=True))
    listed = call("tar", "--list", "--file", "x.tar", cwd=tmp_path).split()
    assert listed == ["./", "./a", "./b/", "./b/c/", "./b/c/d", "./b/run"]


def test_tar_keeps_the_order_where_it_is_told_to() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_archive(FILES, 0, keep_order=True))) as archive:
        assert archive.getnames() == list(FILES)


def test_ar_is_what_ar_reads(tmp_path: Path) -> None:
    (tmp_path / "x.ar").write_bytes(ar_archive({"odd": b"odd", "even": b"even"}, EPOCH))
    assert call("ar", "t", "x.ar", cwd=tmp_path).split() == ["odd", "even"]
    assert call("ar", "p", "x.ar", "even", cwd=tmp_path) == "even"


@pytest.mark.parametrize(("epoch", "year"), [(0, 1980), (EPOCH, 2023)])
def test_zip_stores_and_does_not_go_back_before_1980(epoch: int, year: int) -> None:
    with zipfile.ZipFile(io.BytesIO(zip_archive(FILES, epoch))) as archive:
        assert archive.namelist() == ["a", "b/c/d", "b/run"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time[0] for info in archive.infolist()} == {year}
        assert stat.S_IMODE(archive.getinfo("b/run").external_attr >> 16) == 0o755
        assert archive.read("a") == b"odd"


@given(st.binary(max_size=300), st.sampled_from([0, 1, 65_534, 65_535, 65_536, 131_070, 131_071]))
def test_gzip_gives_back_what_was_stored(data: bytes, more: int) -> None:
    whole = data + bytes(more)
    assert gzip.decompress(stored_gzip(whole)) == whole


def test_gzip_is_read_by_gzip_itself(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(stored_gzip(b"stored\n" * 20_000))
    call("gzip", "--test", "x.gz", cwd=tmp_path)
    assert stored_gzip(b"") == stored_gzip(b"")
