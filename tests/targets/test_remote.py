"""What all devices behind a shell share, on the fake board: the contract, and links that break."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgeprune.errors import StorageError, TargetError, UsageError
from edgeprune.targets import upload
from edgeprune.targets.base import Target
from edgeprune.testing.fake_board import FakeBoard
from edgeprune.testing.targets import TargetContract, run

MIB = 1 << 20


@pytest.fixture
def board(tmp_path: Path) -> FakeBoard:
    return FakeBoard(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(random.Random(1).randbytes(4 * MIB))
    return path


class TestFake(TargetContract):
    @pytest.fixture(autouse=True)
    def _board(self, board: FakeBoard) -> None:
        self.board = board

    def make(self) -> Target:
        return self.board.target()


def test_upload_counts_what_is_sent_again(board: FakeBoard, file: Path) -> None:
    with board.target() as target:
        board.cut_at = 2 * MIB
        path = target.upload(file, "file.bin")
        assert Path(path).read_bytes() == file.read_bytes()
        transfer = target.last_upload  # type: ignore[attr-defined]
        assert (transfer.size_bytes, transfer.found_bytes, transfer.reconnects) == (4 * MIB, 0, 1)
        assert 0 < transfer.resent_bytes <= 4 * (1 << 16)  # no more than was on its way


def test_attempts_are_bounded(board: FakeBoard, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_PAUSES_S", (0.0, 0.0))
    target = board.target()

    def cut_again(size: int) -> None:
        board.sent_bytes += size
        board.cut()

    monkeypatch.setattr(board, "count", cut_again)
    with target:
        with pytest.raises(TargetError) as caught:
            target.upload(file, "file.bin")
        assert caught.value.outcome == "LOST"
        assert target.last_upload is not None
        assert target.last_upload.reconnects == 8
    assert list((board.folder / "tmp").iterdir()) == []


def test_device_that_stays_away(board: FakeBoard, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_PAUSES_S", (0.0, 0.1))
    target = board.target()
    with target:
        board.cut_at = 2 * MIB
        cut = board.cut

        def away() -> None:
            board.reachable = False
            cut()

        monkeypatch.setattr(board, "cut", away)
        with pytest.raises(TargetError, match="lost") as caught:
            target.upload(file, "file.bin")
        assert caught.value.outcome == "LOST"
    assert len(list((board.folder / "tmp").iterdir())) == 1
    board.reachable = True
    with target:
        assert [Path(target.folder)] == list((board.folder / "tmp").iterdir())
    assert list((board.folder / "tmp").iterdir()) == []


def test_source_that_cannot_be_read(board: FakeBoard, tmp_path: Path) -> None:
    with board.target() as target, pytest.raises(StorageError, match="cannot read"):
        target.upload(tmp_path / "absent", "file")


def test_source_that_changes_while_it_is_sent(board: FakeBoard, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(size: int) -> None:
        with file.open("r+b") as source:
            source.seek(-1, 2)
            source.write(bytes([size & 1]))

    monkeypatch.setattr(board, "count", change)
    with board.target() as target:
        with pytest.raises(TargetError, match="cannot store") as caught:
            target.upload(file, "file.bin")
        assert caught.value.outcome == "LOST"
        assert [path for path in Path(target.folder).iterdir() if path.name.startswith("file")] == []


def test_folder_of_that_name(board: FakeBoard, file: Path) -> None:
    with board.target() as target:
        (Path(target.folder) / "taken").mkdir()
        with pytest.raises(TargetError, match="a folder of that name is there"):
            target.upload(file, "taken")
        assert list((Path(target.folder) / "taken").iterdir()) == []


def test_interpreter_below_the_home(board: FakeBoard, tmp_path: Path) -> None:
    python = board.folder / "home" / "python"
    python.write_text("#!/bin/sh\necho mine\n")
    python.chmod(0o755)
    target = FakeBoard(tmp_path, python="~/python").target()
    with target:
        assert target.python == str(python)
        assert run(target, "") == b"mine\n"


def test_command_that_does_not_end_is_a_timeout(board: FakeBoard) -> None:
    with board.target() as target, pytest.raises(TargetError) as caught:
        target.script("sleep 1000", timeout_s=0.3)  # type: ignore[attr-defined]
    assert caught.value.outcome == "TIMEOUT"


def test_folder_needs_an_open_target(board: FakeBoard) -> None:
    target = board.target()
    for attempt in (lambda: target.folder, lambda: target.home, lambda: target.run(["true"], 1)):
        with pytest.raises(UsageError, match="enter the target first"):
            attempt()
    with target, pytest.raises(UsageError, match="already open"):
        target.__enter__()
