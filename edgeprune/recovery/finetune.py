"""Fine-tuning with knowledge distillation from the dense model; interrupted, it continues to the same end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeprune.errors import TaskError, UsageError
from edgeprune.progress import SILENT, Progress, Step
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.recovery import checkpoint as checkpoints
from edgeprune.recovery.distillation import Calls, distillation_loss, recorded
from edgeprune.training_data import BatchSource, LossFn, reproducible, reseed, scalar_loss

__all__ = ["FineTuneReport", "finetune", "learning_rate"]


@dataclass(frozen=True, slots=True)
class FineTuneReport:
    """What was trained. `final_loss` is per example of the last epoch, `seconds` includes the time before a resume."""

    epochs: int
    steps: int
    final_loss: float
    seconds: float


def finetune(
    module: nn.Module,
    batches: BatchSource,
    loss: LossFn,
    *,
    settings: FineTuneSettings,
    teacher: nn.Module | None,
    seed: int,
    checkpoint: Path | None = None,
    max_gradient_norm: float | None = None,
    progress: Progress = SILENT,
) -> FineTuneReport:
    """Train the module in place and leave it in eval mode; a checkpoint of the same fine-tuning is continued.

    SGD with Nesterov momentum, cosine schedule per step, no weight decay on one-dimensional parameters (biases,
    normalisation scales). With a teacher the loss is (1 - α) · loss + α · distillation, see `distillation.distance`.
    torch, random and numpy are seeded from (seed, epoch) before each epoch's `batches()`, and given back afterwards.
    Raises TaskError where the loss is not finite or there are no batches, StorageError for the checkpoint.
    """
    if settings.epochs < 1:
        module.eval()
        return FineTuneReport(0, 0, math.nan, 0.0)
    optimizer = _optimizer(module, settings)
    distilling = teacher is not None and settings.distillation > 0
    mark = checkpoints.fingerprint(module, settings, seed, distilling, max_gradient_norm)
    state = checkpoints.State(mark, 0, 0, 0, math.nan, 0.0)
    if checkpoint is not None and checkpoint.exists():
        found = checkpoints.load(checkpoint, module, optimizer, mark)
        if found is None:
            progress.say(f"{checkpoint.name} belongs to another fine-tuning: starting from the first epoch")
        state = found or state
    try:
        with reproducible(seed):
            if state.steps_per_epoch == 0:
                state = replace(state, steps_per_epoch=_count(batches, settings))
            with progress.step("fine-tuning", settings.epochs * state.steps_per_epoch) as step:
                step.advance(state.epoch * state.steps_per_epoch)
                guide = teacher if distilling else None
                trainer = _Trainer(module, guide, optimizer, loss, settings, max_gradient_norm, step)
                while state.epoch < settings.epochs:
                    state = trainer.epoch(state, batches, seed)
                    if checkpoint is not None:
                        checkpoints.save(checkpoint, module, optimizer, state)
    finally:
        module.eval()
    return FineTuneReport(state.epoch, state.steps, state.final_loss, state.seconds)


def learning_rate(settings: FineTuneSettings, step: int, steps: int) -> float:
    """Cosine from the full rate at step 0 down to zero at `steps` (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return settings.learning_rate * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2


@dataclass(frozen=True, slots=True)
class _Trainer:
    module: nn.Module
    teacher: nn.Module | None
    optimizer: torch.optim.Optimizer
    loss: LossFn
    settings: FineTuneSettings
    max_gradient_norm: float | None
    step: Step

    def epoch(self, state: checkpoints.State, batches: BatchSource, seed: int) -> checkpoints.State:
        """One epoch, from its own seed on: how the ones before it went does not matter to the order of the data."""
        reseed(seed, state.epoch)
        started = time.monotonic()
        self.module.train()
        if self.teacher is not None:
            self.teacher.eval()
        total, seen, done = 0.0, 0, 0
        steps = self.settings.epochs * state.steps_per_epoch
        with recorded(self.module) as calls:
            for batch in _limited(batches, self.settings):
                rate = learning_rate(self.settings, state.epoch * state.steps_per_epoch + done, steps)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                calls.clear()
                value = self._update(batch, calls, f"epoch {state.epoch + 1}, step {done + 1}")
                examples = _examples(calls)
                total, seen, done = total + examples * value, seen + examples, done + 1
                self.step.advance(1, f"loss {total / seen:.3f}")  # of the epoch so far
        if done == 0:
            raise _no_batches()
        return replace(
            state,
            epoch=state.epoch + 1,
            steps=state.steps + done,
            final_loss=total / seen,
            seconds=state.seconds + time.monotonic() - started,
        )

    def _update(self, batch: Any, calls: Calls, where: str) -> float:
        with torch.enable_grad():
            loss = scalar_loss(self.loss(self.module, batch), where)
            if self.teacher is not None:
                alpha = self.settings.distillation
                loss = (1 - alpha) * loss + alpha * distillation_loss(calls, self.teacher, self.settings.temperature)
            value = loss.item()
            if not math.isfinite(value):
                raise TaskError(
                    f"the training loss became {value} in {where}",
                    hint="choose a smaller recovery.learning_rate, or check the training data and loss for NaN",
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        if self.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.max_gradient_norm)
        self.optimizer.step()
        return value


def _optimizer(module: nn.Module, settings: FineTuneSettings) -> torch.optim.Optimizer:
    trained = list(checkpoints.parameters(module).values())
    if not trained:
        raise UsageError("the model has no parameter that requires a gradient: there is nothing to fine-tune")
    return torch.optim.SGD(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )


def _examples(calls: Calls) -> int:
    """How many examples the calls saw: a last batch of three would else count as much as one of sixty-four."""
    first = (
        next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor) and x.ndim), None)
        for args, kwargs, _ in calls
    )
    return sum(1 if x is None else len(x) for x in first) or 1


def _limited(batches: BatchSource, settings: FineTuneSettings) -> Iterator[Any]:
    return islice(iter(batches()), settings.max_batches_per_epoch)


def _count(batches: BatchSource, settings: FineTuneSettings) -> int:
    """Batches per epoch, which the schedule needs: their `len`, or else by going through them once."""
    source = batches()
    limit = settings.max_batches_per_epoch
    try:
        count = len(source)  # type: ignore[arg-type]
    except TypeError:
        count = sum(1 for _ in islice(source, limit))
    count = count if limit is None else min(count, limit)
    if count == 0:
        raise _no_batches()
    return count


def _no_batches() -> TaskError:
    return TaskError("train_batches() gave no batch", hint="it must yield at least one batch per call")
