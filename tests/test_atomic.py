from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgeprune import atomic
from edgeprune.errors import StorageError


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    atomic.write_bytes(path, b"one")
    atomic.write_text(path, "zwei ü")
    assert path.read_bytes() == "zwei ü".encode()
    assert list(path.parent.iterdir()) == [path]


def test_interruption_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_a_storage_error_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*file: No space left on device") as caught:
        atomic.write_bytes(tmp_path / "file", b"new")
    assert "free space" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []
