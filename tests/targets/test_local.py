"""The local target: the contract, and what only it can do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeprune.errors import StorageError, TargetError, UsageError
from edgeprune.targets.base import Target
from edgeprune.targets.local import LocalChannel, LocalTarget
from edgeprune.testing.targets import TargetContract


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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


def test_home_is_below_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalTarget() as target:
        assert target.home == str(tmp_path / "cache" / "edgeprune")
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored: XDG Base Directory Specification
        monkeypatch.setenv("HOME", str(tmp_path))
        assert target.home == str(tmp_path / ".cache" / "edgeprune")


def test_home_that_is_not_private_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "cache" / "edgeprune"

    def refused(target: Target) -> str:
        with pytest.raises(TargetError) as caught:
            _ = target.home
        assert caught.value.outcome == "LOST"
        return caught.value.message

    with LocalTarget() as target:
        home.parent.mkdir()
        (tmp_path / "elsewhere").mkdir()
        home.symlink_to(tmp_path / "elsewhere")
        assert "it is a link" in refused(target)
        home.unlink()
        home.write_text("")
        assert "it is not a folder" in refused(target)
        home.unlink()
        home.mkdir()
        home.chmod(0o770)
        assert "others may write to it" in refused(target)
        home.chmod(0o755)
        assert target.home == str(home)
        assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_home_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache" / "edgeprune").mkdir(parents=True)
    os.chown(tmp_path / "cache" / "edgeprune", 12345, 12345)
    with LocalTarget() as target, pytest.raises(TargetError, match="belongs to someone else"):
        _ = target.home


def test_program_that_does_not_read_is_a_timeout() -> None:
    with LocalTarget() as target:
        channel = target.start(["sleep", "1000"])
        assert isinstance(channel, LocalChannel)
        with pytest.raises(TargetError, match="nothing was taken") as caught:
            channel.send(bytes(8 << 20), 0.3)
        assert caught.value.outcome == "TIMEOUT"


def test_output_without_end_is_cut_off() -> None:
    with LocalTarget() as target, pytest.raises(TargetError, match="more than 1 MiB"):
        target.run(["yes"], 20)
