"""A run that takes seconds: a small CNN on made-up images, told from each other by where they are bright."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from edgeprune.records.trial import CONTRADICTED, INCONCLUSIVE, MEASURED_AGAIN
from edgeprune.search.journal import read_trials

# Where "hold" is, the evaluation of a pruned network waits in a worker, and tells its raylet (if any) and itself.
TASK = """
import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
HERE = Path(__file__).parent


class Tiny:
    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        y = torch.arange(512) % 4
        x = torch.rand(512, 1, 4, 4, generator=generator)
        x[torch.arange(512), 0, y] += 0.3
        self.train, self.test = (x[:256], y[:256]), (x[256:], y[256:])

    def model(self):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 16, 4),
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        model.train()
        for _ in range(4):
            for batch in self.train_batches():
                optimizer.zero_grad()
                self.loss(model, batch).backward()
                optimizer.step()
        return model

    def example_inputs(self):
        return self.test[0][:2]

    def train_batches(self):
        x, y = self.train
        for index in torch.randperm(len(x)).split(64):
            yield x[index], y[index]

    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model):
        if (HERE / "hold").exists() and min(len(p) for p in model.parameters() if p.ndim == 4) < 32:
            part = HERE / f"held-{os.getpid()}.part"
            part.write_text(f"{os.environ.get('RAY_RAYLET_PID', 0)} {os.getpid()}")
            part.rename(HERE / "held")
            time.sleep(600)
        with torch.no_grad():
            return (model.eval()(self.test[0]).argmax(1) == self.test[1]).float().mean().item()
"""

# Short measurements: these tests are about what is built.
PROFILE = """
name: quick
extends: host
measurement: {warmup_time: 1s, min_time: 50ms, max_time: 2s, memory_workers: 1}
"""

PROJECT = """
task: task.py:Tiny
device: {profile: quick.yaml, target: local}
budget: {size: 80% of dense, accuracy: {max_drop: 10pp}}
search: {strategy: greedy, round_to: 16, min_width: 16}
recovery: {epochs: 1}
"""


def write_project(folder: Path, more: str = "") -> Path:
    """The project's file, with all that it names beside it."""
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(TASK)
    (folder / "quick.yaml").write_text(PROFILE)
    (folder / "edgeprune.yaml").write_text(PROJECT + more)
    return folder / "edgeprune.yaml"


def assert_same_trials(one: Path, other: Path) -> None:
    """Two runs came to the same networks, with the same accuracy and the same files."""
    trials = read_trials(one)
    assert len({trial.stage for trial in trials}) > 2
    for mine, yours in zip(trials, read_trials(other), strict=True):
        assert (mine.number, mine.stage, mine.candidate) == (yours.number, yours.stage, yours.candidate)
        for name in {*mine.details, *yours.details} - {
            "device",
            "dense_again",
            MEASURED_AGAIN,
        }:  # which the clock rules
            assert (name, mine.details.get(name)) == (name, yours.details.get(name))
        for name in ("accuracy", "size"):
            assert mine.figures.get(name) == yours.figures.get(name)
        assert mine.artifact == yours.artifact
        if mine.artifact is not None:
            assert (one / mine.artifact).read_bytes() == (other / mine.artifact).read_bytes()


def attempts(run_dir: Path) -> list[str]:
    """The outcomes of the attempts that a run's journal notes, but for what is measured again because of noise."""
    lines = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    found = [line["outcome"] for line in lines if line["kind"] == "attempt"]
    return [outcome for outcome in found if outcome not in (CONTRADICTED, INCONCLUSIVE)]


def wait_until(true: Callable[[], object], seconds: float = 120.0) -> None:
    """Poll; fails where it does not become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
