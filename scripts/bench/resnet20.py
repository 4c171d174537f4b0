"""The trained ResNet-20 for CIFAR-10 and its data, as a task: what benchmarks and tests on a real network share.

The files are found in `../shared/data` beside the project, or in `$EDGEPRUNE_DATA`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.graph.captured import Captured
from edgeprune.records.candidate import Candidate

__all__ = ["Cifar10", "ResNet20", "data_folder", "lowest_l1", "trained_resnet20"]

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def data_folder() -> Path | None:
    """The folder of the real data, or None where it is absent."""
    folder = Path(os.environ.get("EDGEPRUNE_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")
    return folder if (folder / "cifar10" / "train10k.npz").is_file() else None


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut that subsamples and pads channels with zeros (option A of He et al. 2015)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.pad = (channels - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H / stride, W / stride)."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.pad else x
        return functional.relu(y + shortcut)


class ResNet20(nn.Module):
    """ResNet-20 (He et al. 2015, arXiv:1512.03385, section 4.2): 3x32x32 -> 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.layer3 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 10)."""
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def trained_resnet20(folder: Path) -> ResNet20:
    """The network with its trained weights, in eval mode."""
    saved = torch.load(folder / "models" / "resnet20-cifar10.th", map_location="cpu", weights_only=True)["state_dict"]
    model = ResNet20()
    model.load_state_dict({name.removeprefix("module."): value for name, value in saved.items()}, strict=True)
    return model.eval()


class Cifar10:
    """The task: 10,000 training images with crop and flip, 1,000 test images."""

    def __init__(self, folder: Path | None = None, batch_size: int = 128) -> None:
        folder = folder or data_folder()
        if folder is None:
            raise FileNotFoundError("the CIFAR-10 files are not there: set EDGEPRUNE_DATA to the folder of the data")
        self._folder = folder
        self._batch_size = batch_size
        self._train = _load(folder / "cifar10" / "train10k.npz")
        self._test = _load(folder / "cifar10" / "test1k.npz")

    def model(self) -> nn.Module:
        """The trained network."""
        return trained_resnet20(self._folder)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One test image."""
        return (_normalise(self._test[0][:1]),)

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order, cropped by up to 4 pixels and flipped."""
        images, labels = self._train
        order = torch.randperm(len(images))
        for start in range(0, len(images), self._batch_size):
            index = order[start : start + self._batch_size]
            yield _normalise(_augment(images[index])), labels[index]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy."""
        return functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> float:
        """Top-1 accuracy on the test images."""
        images, labels = self._test
        hits = 0
        with torch.no_grad():
            for start in range(0, len(images), 250):
                logits = model(_normalise(images[start : start + 250]))
                hits += int((logits.argmax(1) == labels[start : start + 250]).sum())
        return hits / len(images)


def lowest_l1(dense: Captured, ratio: float) -> Candidate:
    """The channels between the two convolutions of each block, without the filters of lowest L1 norm."""
    weights = dict(dense.module.named_parameters())
    kept: dict[str, list[int]] = {}
    for group in dense.groups:
        producers = [member.parameter for member in group.members if member.role == "producer"]
        if len(producers) == 1 and producers[0].endswith(".conv1.weight"):
            norms = weights[producers[0]].detach().abs().sum(dim=(1, 2, 3))
            kept[group.name] = norms.argsort()[int(ratio * group.units) :].tolist()
    return dense.candidate(kept)


def _load(path: Path) -> tuple[Tensor, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        x: NDArray[np.uint8] = arrays["x"]
        y: NDArray[np.uint8] = arrays["y"]
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(y.astype(np.int64))


def _normalise(images: Tensor) -> Tensor:
    return (images.float() / 255 - _MEAN) / _STD


def _augment(images: Tensor) -> Tensor:
    """Random crop of the image padded by 4 pixels, and a horizontal flip of every other one."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (4, 4, 4, 4))
    dy, dx = torch.randint(0, 9, (count, 1)), torch.randint(0, 9, (count, 1))
    rows = (torch.arange(height) + dy)[:, None, :, None]
    columns = (torch.arange(width) + dx)[:, None, None, :]
    columns = torch.where(torch.rand(count, 1, 1, 1) < 0.5, columns.flip(3), columns)
    every = torch.arange(count).view(-1, 1, 1, 1)
    channels = torch.arange(3).view(1, -1, 1, 1)
    return padded[every, channels, rows, columns]
