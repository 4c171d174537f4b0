"""Running the module on the task's batches, so that the same seed gives the same figures on any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from edgeprune.errors import TaskError
from edgeprune.importance.base import ImportanceContext
from edgeprune.training_data import one_thread, reproducible

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["scoring"]


@contextmanager
def scoring(
    name: str, module: nn.Module, context: ImportanceContext
) -> Iterator[tuple[Iterator[Any], Callable[[Any], torch.Tensor]]]:
    """The batches and the loss of a batch, with the module in eval mode, generators seeded and one thread.

    Raises TaskError where the task has no `train_batches` and `loss`, or gives no batch.
    """
    batches, loss = context.batches, context.loss
    if batches is None or loss is None:
        raise TaskError(
            f"importance {name!r} needs data, and the task gives no loss or no batches",
            hint="give the task train_batches() and loss(model, batch), or choose l1, l2 or bn_scale",
        )
    training = module.training
    used = 0

    def counted() -> Iterator[Any]:
        nonlocal used
        for batch in islice(batches(), context.max_batches):
            yield batch
            used += 1
            step.advance()

    try:
        module.eval()
        with (
            one_thread(),
            reproducible(context.seed),
            context.progress.step(f"{name} importance", context.max_batches) as step,
        ):
            yield counted(), lambda batch: loss(module, batch)
    finally:
        module.train(training)
    if used == 0:
        raise TaskError("train_batches() gave no batch", hint="it must yield at least one batch per call")
