"""Agents that tests start, each test with a lock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.agent.bundle import write_agent
from tests.agent.agent_process import Process
from tests.onnx_models import chain_of_matmuls


@pytest.fixture(scope="module")
def agent_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "device.lock"
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(path))
    return path


@pytest.fixture
def start(lock: Path, agent_file: Path) -> Iterator[Any]:
    started: list[Process] = []

    def start_one(*arguments: str, **options: Any) -> Process:
        started.append(Process(agent_file, *arguments, **options))
        return started[-1]

    yield start_one
    for process in started:
        process.end()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain_of_matmuls(tmp_path_factory.mktemp("models") / "small.onnx", width=64, layers=2).path
