"""Distillation: pull the student's outputs towards the teacher's, on whatever inputs the user's loss feeds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from edgeprune.errors import TaskError

__all__ = ["Calls", "distance", "distances", "distillation_loss", "recorded"]

Calls = list[tuple[tuple[Any, ...], dict[str, Any], Any]]  # (args, kwargs, outputs) of each forward call


@contextmanager
def recorded(module: nn.Module) -> Iterator[Calls]:
    """Keeps inputs and outputs of the module's forward calls while the context lasts; the caller empties the list."""
    calls: Calls = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        calls.append((args, kwargs, outputs))

    handle = module.register_forward_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def distillation_loss(calls: Calls, teacher: nn.Module, temperature: float) -> Tensor:
    """Mean distance between student and teacher over the recorded calls; raises TaskError where there were none."""
    if not calls:
        raise TaskError(
            "loss(model, batch) did not call the model, so there is nothing to distil",
            hint="call model(...) inside loss, or set distillation to 0",
        )
    total = []
    for args, kwargs, outputs in calls:
        with torch.no_grad():
            wanted = teacher(*args, **kwargs)
        total += distances(outputs, wanted, temperature)
    return torch.stack(total).mean()


def distances(outputs: Any, wanted: Any, temperature: float) -> list[Tensor]:
    """The distance of each floating-point tensor in a module's outputs (of any structure) to the one wanted."""
    pairs = zip(pytree.tree_leaves(outputs), pytree.tree_leaves(wanted), strict=True)
    return [
        distance(student, target, temperature)
        for student, target in pairs
        if isinstance(student, Tensor) and student.is_floating_point()
    ]


def distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Logits (N, classes): T² · KL(teacher || student) at temperature T (Hinton et al. 2015, arXiv:1503.02531).

    Outputs of any other shape, and a single logit: mean squared error.
    """
    if student.ndim == 2 and student.shape[1] > 1:
        log_student = functional.log_softmax(student / temperature, dim=1)
        log_teacher = functional.log_softmax(teacher / temperature, dim=1)
        divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
        return divergence * temperature**2
    return functional.mse_loss(student, teacher)
