"""The networks of `search.py` and their data, as tasks: trained once from a fixed seed, kept as safetensors.

The data are found in `../shared/data` beside the project, or in `$EDGEPRUNE_DATA`; trained weights are kept in
`$XDG_CACHE_HOME/edgeprune-bench` (`~/.cache/edgeprune-bench`). The tasks are hard enough that width is worth something:
half of the spoken digits are for testing, under noise, and the ViT sees a tenth of MNIST.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resnet20 import Cifar10, data_folder
from safetensors.torch import load_file, save_file
from spoken_digits import DSCNN, SpokenDigits
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.training_data import reproducible

__all__ = ["NETWORKS", "Network", "cached"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network to prune: its task, and how every method fine-tunes it."""

    task: Callable[[], Any]
    epochs: int
    learning_rate: float = 0.02


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear bottleneck (Sandler et al. 2018, arXiv:1801.04381, figure 3)."""

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.residual = stride == 1 and channels_in == channels
        self.layers = nn.Sequential(
            *_convolution(channels_in, hidden, 1),
            *_convolution(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Small, for log-mel spectrograms of 32 x 63: four stages of inverted residuals."""

    def __init__(self) -> None:
        super().__init__()
        blocks, width = [], 24
        self.stem = nn.Sequential(*_convolution(1, width, 3, stride=(2, 1)))
        for channels, count, stride in ((24, 1, 1), (32, 2, 2), (56, 3, 2), (80, 2, 1)):
            for index in range(count):
                blocks.append(InvertedResidual(width, channels, stride if index == 0 else 1, 4))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*_convolution(width, 160, 1))
        self.head = nn.Linear(160, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 32, 63) -> (N, 10)."""
        logits: Tensor = self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """Self-attention; the width of a head is read off the projections, so that pruned ones work as well."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) -> (N, tokens, width)."""
        count, tokens, _ = x.shape
        q, k, v = (
            layer(x).reshape(count, tokens, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(count, tokens, -1))
        return out


class Encoder(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) -> (N, tokens, width)."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class ViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) on patches of 4 x 4, with mean pooling."""

    def __init__(self, width: int = 64, heads: int = 4, hidden: int = 256, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.blocks = nn.Sequential(*(Encoder(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) -> (N, 10)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


class NoisyDigits(SpokenDigits):
    """Half of the recordings train, half test, under white noise, drawn anew in training."""

    EPOCHS = 12
    NOISE = 0.6  # standard deviations of the features

    def __init__(self, network: Callable[[], nn.Module]) -> None:
        super().__init__()
        x, y = (torch.cat(pair) for pair in zip(self._train, self._test, strict=True))
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
        train, test = order[: len(x) // 2], order[len(x) // 2 :]
        noise = self.NOISE * torch.randn(x[test].shape, generator=torch.Generator().manual_seed(0))
        self._train, self._test = (x[train], y[train]), (x[test] + noise, y[test])
        self._network = network

    def model(self) -> nn.Module:
        """The trained network."""
        return cached(self._network, lambda: _trained(self._network(), self, self.EPOCHS, torch.optim.SGD, 0.1))

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order, shifted in time and noisy."""
        for x, y in super().train_batches():
            yield x + self.NOISE * torch.randn(x.shape), y


class WideDSCNN(DSCNN):
    """DS-CNN of a width that takes long enough to be measured well."""

    def __init__(self) -> None:
        super().__init__(width=128)


class SmallMnist:
    """The task: the first 6,000 training images, shifted by up to 2 pixels, and the first 3,000 test images."""

    EPOCHS = 14
    BATCH = 64

    def __init__(self) -> None:
        folder = data_folder()
        if folder is None:
            raise FileNotFoundError("MNIST is not there: set EDGEPRUNE_DATA to the folder of the data")
        with np.load(folder / "mnist" / "mnist70k.npz", allow_pickle=False) as arrays:
            self._train = _images(arrays["x_train"][:6000], arrays["y_train"][:6000])
            self._test = _images(arrays["x_test"][:3000], arrays["y_test"][:3000])

    def model(self) -> nn.Module:
        """The trained network."""
        return cached(ViT, lambda: _trained(ViT(), self, self.EPOCHS, torch.optim.AdamW, 2e-3))

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One image."""
        return (self._test[0][:1],)

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order; a batch is shifted as one."""
        x, y = self._train
        for index in torch.randperm(len(x)).split(self.BATCH):  # type: ignore[no-untyped-call]
            down, right = torch.randint(-2, 3, (2,)).tolist()
            yield x[index].roll((down, right), dims=(2, 3)), y[index]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy."""
        return functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> float:
        """Top-1 accuracy on the test images."""
        x, labels = self._test
        hits = 0
        with torch.no_grad():
            for start in range(0, len(x), 500):
                hits += int((model(x[start : start + 500]).argmax(1) == labels[start : start + 500]).sum())
        return hits / len(x)


NETWORKS = {
    "resnet20": Network(Cifar10, epochs=6),
    "mobilenetv2": Network(lambda: NoisyDigits(MobileNetV2), epochs=6),
    "dscnn": Network(lambda: NoisyDigits(WideDSCNN), epochs=6),
    "vit": Network(SmallMnist, epochs=6),
}


def cached(network: Callable[[], nn.Module], train: Callable[[], nn.Module]) -> nn.Module:
    """The trained network (eval mode) from the cache, or trained and put there.

    What it is kept under changes with this file and with the network's own.
    """
    sources = {inspect.getsourcefile(one) or "" for one in (cached, network)}
    digest = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sorted(sources))).hexdigest()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeprune-bench"
    path = root / f"{network.__name__.lower()}-{digest[:16]}.safetensors"
    if path.exists():
        model = network()
        model.load_state_dict(load_file(path))
        return model.eval()
    with reproducible(0):
        model = train()
    root.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(model.state_dict(), part)
    part.replace(path)
    return model.eval()


def _trained(
    model: nn.Module, task: Any, epochs: int, optimizer: Callable[..., torch.optim.Optimizer], rate: float
) -> nn.Module:
    options = {"momentum": 0.9, "nesterov": True} if optimizer is torch.optim.SGD else {}
    updates = optimizer(model.parameters(), rate, weight_decay=5e-4, **options)
    batches = sum(1 for _ in task.train_batches())
    schedule = torch.optim.lr_scheduler.OneCycleLR(updates, max_lr=rate, total_steps=epochs * batches)
    model.train()
    for _ in range(epochs):
        for batch in task.train_batches():
            updates.zero_grad()
            task.loss(model, batch).backward()
            updates.step()
            schedule.step()
    return model.eval()


def _convolution(channels_in: int, channels: int, kernel: int, **options: Any) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False, **options)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU6()


def _images(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(x.astype(np.float32)).unsqueeze(1) / 255
    return (images - 0.1307) / 0.3081, torch.from_numpy(y.astype(np.int64))
