"""Spoken digits: a depthwise-separable CNN on log-mel spectrograms, as a task.

The data are found in `../shared/data` beside the project, or in `$EDGEPRUNE_DATA` (Free Spoken Digit Dataset).
The network is trained when the task is first asked for its model: about half a minute on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DSCNN", "SpokenDigits", "data_file"]


def data_file() -> Path | None:
    """The features, or None where they are absent."""
    folder = Path(os.environ.get("EDGEPRUNE_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")
    path = folder / "spoken_digits" / "logmel.npz"
    return path if path.is_file() else None


def _separable(width: int) -> nn.Sequential:
    """A depthwise 3x3 and a pointwise convolution, each with batch-norm and ReLU."""
    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    pointwise = nn.Conv2d(width, width, 1, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(width), nn.ReLU(), pointwise, nn.BatchNorm2d(width), nn.ReLU())


class DSCNN(nn.Module):
    """DS-CNN (Zhang et al. 2017, arXiv:1711.07128): one strided convolution, then depthwise-separable blocks."""

    def __init__(self, width: int = 96, blocks: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, (5, 5), stride=2, padding=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(_separable(width) for _ in range(blocks)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 32, 63) -> (N, 10)."""
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


class SpokenDigits:
    """The task: 2,700 training and 300 test recordings."""

    EPOCHS = 12
    BATCH = 64

    def __init__(self) -> None:
        path = data_file()
        if path is None:
            raise FileNotFoundError("the spoken digits are not there: set EDGEPRUNE_DATA to the folder of the data")
        with np.load(path, allow_pickle=False) as arrays:
            x, y = torch.from_numpy(arrays["x"].astype(np.float32)), torch.from_numpy(arrays["y"].astype(np.int64))
            test = torch.from_numpy(arrays["test"])
        mean, std = x[~test].mean(), x[~test].std()
        x = (x - mean) / std
        self._train, self._test = (x[~test], y[~test]), (x[test], y[test])

    def model(self) -> nn.Module:
        """The network, trained from a fixed seed."""
        torch.manual_seed(0)
        model = DSCNN()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
        steps = self.EPOCHS * -(-len(self._train[0]) // self.BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
        model.train()
        for _ in range(self.EPOCHS):
            for batch in self.train_batches():
                optimizer.zero_grad()
                self.loss(model, batch).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        return model.eval()

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One recording."""
        return (self._test[0][:1],)

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order, shifted in time by up to 4 frames."""
        x, y = self._train
        for index in torch.randperm(len(x)).split(self.BATCH):  # type: ignore[no-untyped-call]
            shift = int(torch.randint(-4, 5, ()))
            yield x[index].roll(shift, dims=-1), y[index]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy."""
        return functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> float:
        """Top-1 accuracy on the test recordings."""
        x, y = self._test
        with torch.no_grad():
            return float((model(x).argmax(1) == y).float().mean())
