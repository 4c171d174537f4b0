"""What the tests of TFLite share: the environment, a network with everything that could be turned or renamed, files."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import UsageError
from edgeprune.export.environment import Installation, find

__all__ = ["EXAMPLES", "RUNTIMES", "Tagger", "needed", "tagger"]

# By environment; tflite-runtime has no wheels for later Pythons, and is not missed there.
RUNTIMES = {"tflite": "ai-edge-litert", **({"tflite-runtime": "tflite-runtime"} if sys.version_info < (3, 12) else {})}
EXAMPLES = (torch.linspace(-2, 2, 108).reshape(1, 3, 6, 6), torch.tensor([[1, 6]]))


class Tagger(nn.Module):
    """An image and two words: a picture of features and scores, in a dict; the user's names must not get out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.words = nn.Embedding(7, 8)
        self.head = nn.Linear(8 * 36, 5)

    def forward(self, image: Tensor, words: Tensor) -> dict[str, Tensor]:
        features = self.stem(image)
        scores = self.head(features.flatten(1)).softmax(-1)
        return {"scores": scores, "features": features + self.words(words).mean(1)[:, :, None, None]}


def tagger() -> Tagger:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return Tagger().eval()


def needed(name: str) -> Installation:
    """The environment of that name; a test that needs it is skipped where it is not there, which fails in CI."""
    try:
        return find(name)
    except UsageError as error:
        pytest.skip(f"{error.message}: scripts/test makes it")
