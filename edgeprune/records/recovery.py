"""Settings of recovery: how a pruned network gets its accuracy back."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FineTuneSettings"]


@dataclass(frozen=True, slots=True)
class FineTuneSettings:
    """Fine-tuning by SGD with Nesterov momentum and a cosine schedule, distilling from the dense model.

    `distillation` is the weight of the distillation loss (alpha of Hinton et al. 2015, arXiv:1503.02531; 0 turns it
    off), `temperature` its temperature; `max_batches_per_epoch` cuts epochs short. Zero epochs is no fine-tuning.
    """

    epochs: int = 6
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    temperature: float = 4.0
    distillation: float = 0.9
    max_batches_per_epoch: int | None = None
