"""Handwritten digits: a CNN on the 1,797 images of 8 x 8 pixels that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).parent / "digits.safetensors"  # remove it to train again
EPOCHS = 3
BATCH = 64

Batch = tuple[Tensor, Tensor]


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def network() -> nn.Module:
    # Far wider than the digits need, so that its latency is that of the network and not of the call.
    return nn.Sequential(
        convolution(1, 112),
        convolution(112, 112),
        nn.MaxPool2d(2),
        convolution(112, 224),
        convolution(224, 224),
        nn.MaxPool2d(2),
        convolution(224, 224),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(224, 10),
    )


class Digits:
    """The task that edgeprune.yaml names."""

    def __init__(self) -> None:
        digits = load_digits()
        split = train_test_split(digits.images, digits.target, test_size=450, stratify=digits.target, random_state=0)
        train_x, test_x, train_y, test_y = (torch.from_numpy(part) for part in split)
        self.train_x, self.train_y = self.images(train_x), train_y
        self.test_x, self.test_y = self.images(test_x), test_y

    @staticmethod
    def images(pixels: Tensor) -> Tensor:
        """From (n, 8, 8) with values to 16, to (n, 1, 16, 16) with values to 1."""
        return F.interpolate(pixels[:, None].float() / 16, size=(16, 16), mode="bilinear", align_corners=False)

    def model(self) -> nn.Module:
        if WEIGHTS.exists():  # a resumed run finds the weights that it began with
            model = network()
            model.load_state_dict(load_file(WEIGHTS))
        else:
            torch.manual_seed(0)  # the same weights every time
            model = network()
            self.train(model)
            part = WEIGHTS.with_suffix(".part")
            save_file(model.state_dict(), part)
            part.replace(WEIGHTS)  # whole or not at all
        return model.eval()

    def train(self, model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
        steps = EPOCHS * -(-len(self.train_x) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
        model.train()
        for _ in range(EPOCHS):
            for batch in self.train_batches():
                optimizer.zero_grad()
                self.loss(model, batch).backward()
                optimizer.step()
                schedule.step()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (self.test_x[:2],)

    def train_batches(self) -> Iterator[Batch]:
        for index in torch.randperm(len(self.train_x)).split(BATCH):
            yield self.train_x[index], self.train_y[index]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def evaluate(self, model: nn.Module) -> float:
        model.eval()
        with torch.no_grad():
            return (model(self.test_x).argmax(1) == self.test_y).float().mean().item()
