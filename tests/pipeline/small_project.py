"""A project that is trained and pruned in seconds: a small CNN on scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

TASK = """
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)  # so small a network is slower on more, and far slower beside other tests

WEIGHTS = Path(__file__).parent / "weights.safetensors"


class Small:
    def __init__(self):
        digits = load_digits()
        x, y = torch.from_numpy(digits.images)[:, None].float() / 16, torch.from_numpy(digits.target)
        self.train, self.test = (x[:1300], y[:1300]), (x[1300:], y[1300:])

    def network(self):
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48 * 16, 10),
        )

    def model(self):
        torch.manual_seed(0)
        model = self.network()
        if WEIGHTS.exists():
            model.load_state_dict(load_file(WEIGHTS))
            return model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        model.train()
        for _ in range(3):
            for batch in self.train_batches():
                optimizer.zero_grad()
                self.loss(model, batch).backward()
                optimizer.step()
        part = WEIGHTS.with_suffix(".part")
        save_file(model.state_dict(), part)
        os.replace(part, WEIGHTS)
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
        with torch.no_grad():
            return (model.eval()(self.test[0]).argmax(1) == self.test[1]).float().mean().item()


class Untrained(Small):
    def model(self):
        torch.manual_seed(0)
        return self.network()


class NoTraining:
    def __init__(self):
        small = Small()
        self.model, self.example_inputs, self.evaluate = small.model, small.example_inputs, small.evaluate
"""

# Short measurements: these tests are about the run, not about the last per cent.
PROFILE = """
name: quick
extends: host
measurement: {warmup_time: 1s, min_time: 50ms, max_time: 2s, memory_workers: 1}
"""

PROJECT = """
task: task.py:Small
device: {profile: quick.yaml, target: local}
budget: {size: 50% of dense, accuracy: {max_drop: 5pp}}
search: {strategy: uniform, round_to: 4, min_width: 4}
recovery: {epochs: 2}
"""


def write_project(folder: Path, project: str = PROJECT) -> Path:
    """The project's file, with all that it names beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.py").write_text(TASK)
    (folder / "quick.yaml").write_text(PROFILE)
    (folder / "edgeprune.yaml").write_text(project)
    return folder / "edgeprune.yaml"
