from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune.search.journal import read_trials

# A run in a process of its own, on a device that takes its time; it writes result.json when it is done.
CHILD = """
import json, os, sys, time
from pathlib import Path
from edgeprune import atomic
from edgeprune.records import codec
from edgeprune.records.budget import Budget
from edgeprune.registry import resolve
from edgeprune.search.journal import Journal
from edgeprune.search.loop import search
from edgeprune.testing.simulation import SimulatedNetwork

folder, name, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
budget = Budget.parse({"latency": {"p50": "45% of dense"}, "size": "45% of dense", "accuracy": {"max_drop": "9pp"}})
network = SimulatedNetwork()

def evaluate(candidate, stage, number):
    with (folder / "started").open("a") as file:
        file.write(f"{number}\\n")
    time.sleep(pause)
    return network(candidate, stage, number)

folder.mkdir(exist_ok=True)
factory = resolve("strategies", name)
with Journal.open(folder, {"strategy": name}, resume=True) as journal:
    result = search(lambda dense: factory(network.space(), budget, dense, seed=0), evaluate, journal, budget)
atomic.write_text(folder / "result.json", json.dumps(codec.to_json(result)))
"""


def child(folder: Path, name: str, pause: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), name, str(pause)])


@pytest.mark.parametrize("name", ["uniform", "greedy"])
def test_a_run_killed_at_ten_random_moments_ends_as_if_it_was_not(tmp_path: Path, name: str) -> None:
    smooth, killed = tmp_path / "smooth", tmp_path / "killed"
    with child(smooth, name, 0.0) as process:
        assert process.wait() == 0
    draw = random.Random(name)
    pause, kills, hit = 0.06, 0, 0
    for _ in range(10):
        before = len(started(killed))
        with child(killed, name, pause) as process:
            wait_until(lambda before=before: len(started(killed)) > before or process.poll() is not None)
            time.sleep(draw.uniform(0.0, 1.3 * pause))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            hit += len(set(started(killed))) > len(read_trials(killed))
    assert kills >= 8
    assert hit >= 3
    with child(killed, name, 0.0) as process:
        assert process.wait() == 0
    trials = read_trials(killed)
    assert trials == read_trials(smooth)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert (killed / "result.json").read_bytes() == (smooth / "result.json").read_bytes()
    # Only a trial that was under way when the run was killed is done again.
    numbers = started(killed)
    assert sorted(set(numbers)) == list(range(len(trials)))
    assert numbers == sorted(numbers)
    assert len(numbers) <= len(trials) + kills


def started(folder: Path) -> list[int]:
    """The numbers of all trials that were begun, in order."""
    path = folder / "started"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
