"""The device's lock and the line before it, with real processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from edgeprune.agent.device.frames import Frames
from edgeprune.agent.device.lock import DeviceLock, wait_for_lock
from edgeprune.agent.device.turns import Turn

TAKER = """
import sys, time
from pathlib import Path
from edgeprune.agent.device.frames import Frames
from edgeprune.agent.device.lock import DeviceLock, wait_for_lock
lock = DeviceLock(Path(sys.argv[1]))
if wait_for_lock(lock, sys.argv[2], float(sys.argv[3]), Frames(1)):
    print('{"type": "taken"}', flush=True)
    sys.stdin.readline()
    with open(sys.argv[4], "a") as log:
        log.write(sys.argv[2] + "\\n")
    lock.release()
"""


class Taker:
    def __init__(self, lock: Path, name: str, wait_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKER, str(lock), name, str(wait_s), str(lock.parent / "order")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        frame: dict[str, Any] = json.loads(self.process.stdout.readline())
        return frame

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.lock"


@pytest.fixture
def take(path: Path) -> Iterator[Any]:
    takers: list[Taker] = []

    def take_one(name: str, wait_s: float = 60.0) -> Taker:
        takers.append(Taker(path, name, wait_s))
        return takers[-1]

    yield take_one
    for taker in takers:
        taker.process.kill()
        taker.process.communicate()


def test_who_came_first_is_next(take: Any, path: Path) -> None:
    holder = take("holder")
    assert holder.hear()["type"] == "taken"
    waiters = []
    for number in range(6):
        waiters.append(take(f"w{number}"))
        said = waiters[-1].hear()
        assert (said["type"], said["holder"]["owner"]) == ("waiting", "holder")
    assert take("impatient", 0).hear()["type"] == "busy"
    for taker in [holder, *waiters]:
        taker.go()
    assert [waiter.process.wait(timeout=60) for waiter in waiters] == [0] * 6
    assert (path.parent / "order").read_text().split() == ["holder", *(f"w{number}" for number in range(6))]
    assert sorted(file.name for file in path.parent.iterdir()) == ["order"]


def test_nobody_waits_behind_the_dead(take: Any, path: Path) -> None:
    holder = take("holder")
    assert holder.hear()["type"] == "taken"
    dead, stopped_and_killed, alive = take("dead"), take("stopped"), take("alive")
    for taker in (dead, stopped_and_killed, alive):
        assert taker.hear()["type"] == "waiting"
    stopped_and_killed.process.send_signal(signal.SIGSTOP)
    for taker in (dead, stopped_and_killed, holder):
        taker.process.kill()
        taker.process.wait(timeout=10)
    assert alive.hear()["type"] == "taken"


def test_a_newcomer_does_not_overtake(path: Path) -> None:
    lock = DeviceLock(path)
    line = path.parent / (path.name + ".line")
    first = Turn(line)
    code = (
        "import sys; from pathlib import Path; from edgeprune.agent.device.turns import Turn;"
        "turn = Turn(Path(sys.argv[1])); print(turn.has_come()); turn.leave()"
    )

    def newcomer() -> str:
        return subprocess.run([sys.executable, "-c", code, line], check=True, capture_output=True, text=True).stdout

    assert first.has_come()
    assert newcomer() == "False\n"
    first.leave()
    assert not line.exists()
    assert newcomer() == "True\n"
    assert lock.holder()["owner"] == "another who waits"


@pytest.mark.parametrize("text", ["[1]", "7", "null", '{"owner": 1}', "[" * 900, "", "\x00", '{"pid": -4}'])
def test_any_text_in_the_file_is_an_owner_that_is_not_known(path: Path, text: str) -> None:
    other = DeviceLock(path)
    assert other.try_take("other") is None
    path.write_text(text)
    assert set(DeviceLock(path).try_take("me") or {}) == {"owner"}
    other.release()


def test_a_link_in_place_of_the_line_is_not_followed(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    line = path.parent / (path.name + ".line")
    line.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        Turn(line)
    line.unlink()
    os.link(precious, line)
    with pytest.raises(FileNotFoundError, match="not a plain file"):
        Turn(line)
    assert precious.read_text() == "precious"


def test_a_line_of_garbage_begins_anew(path: Path) -> None:
    path.write_text("garbage")
    turn = Turn(path)
    assert turn.has_come()
    turn.leave()


def test_the_last_of_two_who_leave_together_removes_the_file(path: Path) -> None:
    turn = Turn(path)
    with path.open("r+b") as other:  # who leaves at the same moment: holds the file, and saw our byte still locked
        fcntl.flock(other, fcntl.LOCK_EX)
        leaving = threading.Thread(target=turn.leave)
        leaving.start()
        time.sleep(0.2)
        assert path.exists()
    leaving.join(5)
    assert not path.exists()


def test_the_line_is_left_before_busy_is_said(path: Path) -> None:
    holder = DeviceLock(path)
    assert holder.try_take("holder") is None
    line, seen = path.parent / (path.name + ".line"), []

    class Ear:  # who hears it may end the process at once
        def send(self, **frame: Any) -> None:
            seen.append((frame["type"], line.exists()))

    assert not wait_for_lock(DeviceLock(path), "other", 0.0, cast("Frames", Ear()))
    assert seen == [("busy", False)]
    holder.release()
