"""Re-estimate the running statistics of batch normalisations after surgery."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import nn

from edgeprune.errors import TaskError
from edgeprune.graph.normalisation import Normalisation, normalisations
from edgeprune.progress import SILENT, Progress
from edgeprune.training_data import LossFn

__all__ = ["reestimate"]


def reestimate(
    module: nn.Module, batches: Iterable[Any], loss: LossFn, *, max_batches: int = 50, progress: Progress = SILENT
) -> int:
    """Replace the running means and variances by the plain average of the batches' own; the batches used.

    The module runs in train mode without gradients, by way of `loss(module, batch)`, and is left in eval mode. 0, and
    nothing is run, where it has no running statistics. Every batch counts the same, as in
    `torch.optim.swa_utils.update_bn`. Raises TaskError where there is no batch.
    """
    buffers = dict(module.named_buffers(remove_duplicate=False))
    running = [norm for norm in normalisations(module) if norm.running_mean in buffers and norm.momentum]
    if not running or max_batches < 1:
        module.eval()
        return 0
    statistics = {
        name: (buffers[name], _momentum(norm))
        for norm in running
        for name in (norm.running_mean, norm.running_var)
        if name is not None
    }
    before = {name: buffer.clone() for name, (buffer, _) in statistics.items()}
    sums = {name: torch.zeros_like(buffer, dtype=torch.float64) for name, (buffer, _) in statistics.items()}
    used = 0
    try:
        module.train()
        with torch.no_grad(), progress.step("batch-norm statistics", max_batches) as step:
            for batch in islice(batches, max_batches):
                for buffer, _ in statistics.values():
                    buffer.zero_()
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(used)  # dropout is on in train mode: same masks every time
                    loss(module, batch)
                # From zero, one update leaves momentum * (statistic of this batch), and nothing where not executed.
                for name, (buffer, momentum) in statistics.items():
                    sums[name] += buffer.double() / momentum
                used += 1
                step.advance()
        if used == 0:
            raise TaskError("train_batches() gave no batch", hint="it must yield at least one batch per call")
        for name, (buffer, _) in statistics.items():
            buffer.copy_(sums[name] / used)
    except BaseException:
        for name, (buffer, _) in statistics.items():
            buffer.copy_(before[name])
        raise
    finally:
        module.eval()
    return used


def _momentum(normalisation: Normalisation) -> float:
    momentum = normalisation.momentum
    if momentum is None:
        raise AssertionError("only normalisations with a momentum are asked")
    return momentum
