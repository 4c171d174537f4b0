"""What importance and recovery need of the user's training part: a loss, batches, and the same order every time."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import TaskError
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

__all__ = ["BatchSource", "ImportanceContext", "LossFn", "one_thread", "reproducible", "reseed", "scalar_loss"]

LossFn = Callable[["torch.nn.Module", Any], "torch.Tensor"]  # loss(model, batch): it calls the model itself
BatchSource = Callable[[], Iterable[Any]]  # one epoch


@dataclass(frozen=True, slots=True)
class ImportanceContext:
    """What an importance may draw on besides the weights: a seed, and the task's training part where it has one."""

    seed: int = 0
    batches: BatchSource | None = None
    loss: LossFn | None = None
    max_batches: int = 20
    progress: Progress = SILENT


def reseed(seed: int, epoch: int = 0) -> None:
    """Seed the global generators of torch, random and numpy from (seed, epoch): user data may draw from any of them."""
    import torch

    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    random.seed(int.from_bytes(digest[8:16], "big"))
    np.random.seed(int.from_bytes(digest[16:20], "big"))


def scalar_loss(loss: Any, where: str) -> torch.Tensor:
    """What the user's loss returned, as a tensor of no dimensions; raises TaskError where it cannot be trained on."""
    import torch

    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise TaskError(
            f"loss(model, batch) returned {what}, not a scalar tensor with a gradient ({where})",
            hint="return the loss itself, without .item(), .detach() or torch.no_grad()",
        )
    return loss.reshape(())


@contextmanager
def reproducible(seed: int, epoch: int = 0) -> Iterator[None]:
    """Run with reseeded global generators, and give them back as they were."""
    import torch

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    reseed(seed, epoch)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: its kernels sum in an order that depends on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
