"""The worker's cores: named ones or the big ones, before any thread is started."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeprune.agent.device.frames import OutcomeError
from edgeprune.agent.device.worker import big_cores, pin
from tests.agent.agent_process import endless
from tests.agent.systems import fake_system

CAPACITY = "sys/devices/system/cpu/cpu{}/cpu_capacity"
CLOCK = "sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq"


def board(root: Path, files: dict[str, list[int]]) -> Path:
    return fake_system(root, {path.format(n): f"{v}\n" for path, values in files.items() for n, v in enumerate(values)})


def test_big_cores_are_those_of_the_highest_capacity(tmp_path: Path) -> None:
    root = board(tmp_path, {CAPACITY: [250, 250, 1024, 1024], CLOCK: [2000000, 2000000, 1800000, 1800000]})
    assert big_cores({0, 1, 2, 3}, root) == {2, 3}
    assert big_cores({0, 1, 2}, root) == {2}
    assert big_cores({0, 1}, root) == {0, 1}  # the biggest of those that may be used


def test_big_cores_are_those_of_the_highest_clock_where_no_capacity_is_told(tmp_path: Path) -> None:
    root = board(tmp_path, {CLOCK: [1800000, 1800000, 1800000, 1800000, 2400000, 2400000]})
    assert big_cores(set(range(6)), root) == {4, 5}


def test_big_cores_are_not_guessed(tmp_path: Path) -> None:
    root = board(tmp_path, {CLOCK: [1800000]})  # the second core says nothing
    with pytest.raises(OutcomeError, match=r"neither cpu_capacity nor cpuinfo_max_freq.*cores: \[0\]") as caught:
        big_cores({0, 1}, root)
    assert caught.value.outcome == "NO_CORES"


def test_cores_that_are_not_there_are_named(tmp_path: Path) -> None:
    usable = os.sched_getaffinity(0)
    with pytest.raises(OutcomeError, match=r"no core 4711 can be used here, only ") as caught:
        pin([min(usable), 4711], tmp_path)
    assert caught.value.outcome == "NO_CORES"
    assert os.sched_getaffinity(0) == usable


def test_every_thread_of_the_worker_stays_on_the_named_cores(start: Any, model: Path) -> None:
    core = max(os.sched_getaffinity(0))
    agent = start()
    agent.hear("hello")
    agent.measure(model, threads=3, cores=[core], min_s=2.0, max_s=2.0, max_runs=10**9)
    worker: psutil.Process = agent.worker()
    end = time.monotonic() + 20
    while len(worker.threads()) < 3 and time.monotonic() < end:
        time.sleep(0.02)  # it is still at its imports
    threads = [thread.id for thread in worker.threads()]
    assert len(threads) >= 3
    assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset({core})}
    result = agent.hear("result")
    assert (result["outcome"], result["latency"]["cores"]) == ("OK", [core])


def test_without_named_cores_the_scheduler_chooses(start: Any, model: Path) -> None:
    agent = start()
    assert os.sched_getaffinity(endless(agent, model).pid) == os.sched_getaffinity(0)


def test_measuring_on_absent_cores_is_an_outcome(start: Any, model: Path) -> None:
    agent = start()
    agent.hear("hello")
    agent.measure(model, cores=[4711])
    result = agent.hear("result")
    assert (result["outcome"], "no core 4711" in result["message"]) == ("NO_CORES", True)
