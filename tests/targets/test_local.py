"""The local target: the contract, and what only it can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import StorageError, TargetError, UsageError
from edgeprune.targets.base import Target
from edgeprune.targets.local import LocalTarget
from edgeprune.testing.targets import TargetContract


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))


class TestLocal(TargetContract):
    def make(self) -> Target:
        return LocalTarget()


def test_folder_needs_an_open_target() -> None:
    with pytest.raises(UsageError, match="enter the target first"):
        _ = LocalTarget().folder


def test_open_twice_is_refused() -> None:
    with LocalTarget() as target, pytest.raises(UsageError, match="already open"):
        target.__enter__()


def test_missing_program_has_no_runtime() -> None:
    with LocalTarget() as target, pytest.raises(TargetError) as caught:
        target.start(["/no/such/python"])
    assert caught.value.outcome == "NO_RUNTIME"


def test_missing_source_is_a_storage_error(tmp_path: Path) -> None:
    with LocalTarget() as target, pytest.raises(StorageError, match="cannot read"):
        target.upload(tmp_path / "absent", "x")


def test_full_device_has_no_space(tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    source = tmp_path / "big"
    source.write_bytes(bytes(4 << 20))
    with LocalTarget() as target:
        with pytest.raises(TargetError) as caught:
            target.upload(source, "big")
        assert caught.value.outcome == "NO_SPACE"
        assert list(Path(target.folder).iterdir()) == []
