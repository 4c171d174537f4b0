"""What edgeprune needs to know of your network: fill in the five parts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MyTask:
    """The task that edgeprune.yaml names. It is made once per command, without arguments."""

    def model(self) -> nn.Module:
        # The trained network. Load weights with torch.load(..., weights_only=True) or safetensors.
        raise NotImplementedError("return your trained network")

    def example_inputs(self) -> tuple[Tensor, ...]:
        # One batch, as the network is called with; the first dimension is the batch.
        return (torch.zeros(2, 3, 224, 224),)

    def evaluate(self, model: nn.Module) -> float:
        # The metric on your validation data, between 0 and 1; higher is better.
        raise NotImplementedError("return the accuracy of `model`")

    # The next two are optional and go together. Without them nothing is fine-tuned, and the drop of accuracy
    # is what pruning alone causes.

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        # The batches of one epoch; called once for each epoch.
        raise NotImplementedError("yield batches of your training data")

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels)
