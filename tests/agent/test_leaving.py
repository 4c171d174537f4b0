"""What an agent leaves behind, and to whom it leaves the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.agent.agent_process import endless, gone

# --- what is left behind


def test_end_of_input_leaves_nothing(start: Any, model: Path, tmp_path: Path, lock: Path) -> None:
    folder = tmp_path / "edgeprune-private"
    folder.mkdir()
    agent = start("--folder", str(folder))
    worker = endless(agent, model)
    assert lock.exists()
    agent.process.stdin.close()
    assert agent.process.wait(timeout=10) is not None
    assert gone(worker)
    assert not folder.exists()
    assert not lock.exists()


def test_bye_keeps_the_folder_to_its_owner(start: Any, tmp_path: Path, lock: Path) -> None:
    folder = tmp_path / "edgeprune-private"
    folder.mkdir()
    agent = start("--folder", str(folder))
    agent.hear("hello")
    agent.say(request="bye")
    assert agent.process.wait(timeout=10) == 0
    assert folder.exists()
    assert not lock.exists()


def test_foreign_folder_is_never_removed(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    agent = start("--folder", str(folder))
    agent.hear("hello")
    agent.end()
    assert folder.exists()


def test_killed_agent_takes_its_worker_along(start: Any, model: Path) -> None:
    agent = start()
    worker = endless(agent, model)
    agent.process.kill()
    assert gone(worker)


def test_silence_ends_the_agent(start: Any, lock: Path) -> None:
    agent = start("--idle-s", "3")
    agent.hear("hello")
    assert agent.process.wait(timeout=20) is not None
    assert not lock.exists()


def test_discarded_artifacts_are_removed_inside_the_folder_only(start: Any, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edgeprune-private"
    folder.mkdir()
    for path in (folder / "old.onnx", tmp_path / "precious.onnx"):
        path.write_bytes(b"x")
    agent = start("--folder", str(folder))
    agent.hear("hello")
    agent.measure(model, discard=[str(folder / "old.onnx"), str(tmp_path / "precious.onnx")])
    assert agent.hear("result")["outcome"] == "OK"
    assert not (folder / "old.onnx").exists()
    assert (tmp_path / "precious.onnx").exists()


# --- the lock


def test_second_agent_is_busy_and_names_the_owner(start: Any) -> None:
    first = start("--owner", "ada@lab")
    first.hear("hello")
    second = start("--owner", "eve@lab")
    busy = second.hear()
    assert busy["type"] == "busy"
    assert busy["holder"]["owner"] == "ada@lab"
    assert busy["holder"]["pid"] == first.process.pid
    assert second.process.wait(timeout=10) == 0


def test_waiting_agent_takes_over(start: Any, lock: Path) -> None:
    first = start("--owner", "ada@lab")
    first.hear("hello")
    second = start("--owner", "eve@lab", "--wait-s", "30")
    assert second.hear()["type"] == "waiting"
    first.process.kill()  # no goodbye: the kernel frees the lock
    assert second.hear("hello", "busy")["type"] == "hello"
    assert json.loads(lock.read_text())["owner"] == "eve@lab"


def test_only_one_of_many_gets_the_lock(start: Any) -> None:
    agents = [start("--owner", f"user{number}") for number in range(5)]
    kinds = sorted(agent.hear("hello", "busy")["type"] for agent in agents)
    assert kinds == ["busy"] * 4 + ["hello"]


def test_lock_is_no_way_to_write_elsewhere(start: Any, tmp_path: Path, lock: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    lock.symlink_to(precious)
    agent = start()
    assert agent.process.wait(timeout=10) != 0
    assert precious.read_text() == "precious"
