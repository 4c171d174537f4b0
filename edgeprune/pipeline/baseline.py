"""Is the dense model a sound start? What is wrong with it is said before anything is pruned."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING

from edgeprune.errors import CaptureError
from edgeprune.records.budget import Budget, State
from edgeprune.records.figures import format_figure

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.graph.captured import Captured
    from edgeprune.pipeline.task import CheckedTask
    from edgeprune.records.trial import Trial

__all__ = ["check_capture", "fingerprint", "warnings"]

_TOLERANCE = 1e-4  # relative, float32 through another order of operations
_BARELY = 0.02  # of accuracy: what training brings at the least
_DRAWS = 3  # random networks differ by some per cent


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over all parameters and buffers, by name."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_capture(model: nn.Module, captured: Captured) -> float:
    """The relative difference of the captured graph to the model on the example inputs; raises CaptureError if any."""
    import torch
    from torch.utils import _pytree as pytree

    with torch.no_grad():
        expected = pytree.tree_leaves(model(*captured.example_inputs))
        actual = pytree.tree_leaves(captured.module(*captured.example_inputs))
    worst = 0.0
    for wanted, got in zip(expected, actual, strict=True):
        if isinstance(wanted, torch.Tensor) and wanted.numel():
            scale = float(wanted.abs().max()) or 1.0
            worst = max(worst, float((wanted - got).abs().max()) / scale)
    if not worst <= _TOLERANCE:
        raise CaptureError(
            f"the captured graph differs from the model by {worst:.3g} relative on the example inputs",
            hint="does the model draw random numbers, or change from call to call, in eval mode?",
        )
    return worst


def warnings(task: CheckedTask, model: nn.Module, dense: Trial, budget: Budget) -> list[str]:
    """What the user should know of the dense model before hours are spent on it."""
    found = []
    accuracy = dense.figures["accuracy"].value
    untrained = _untrained_accuracy(task, model)
    if accuracy is not None and untrained is not None and accuracy <= untrained + _BARELY:
        found.append(
            f"the dense model is hardly better ({format_figure('accuracy', accuracy)}) than the same network with "
            f"random weights ({format_figure('accuracy', untrained)}): does model() load trained weights?"
        )
    found.extend(
        f"the dense model itself misses {entry.limit.metric} {entry.limit.text}: "
        f"{format_figure('accuracy', entry.value)}; a pruned one will hardly reach it"
        for entry in budget.check(dense.figures, dense.figures).only(accuracy=True).limits
        if entry.state is State.VIOLATED and entry.value is not None
    )
    found.extend(
        f"{limit.metric} {limit.text}: the dense model itself meets this limit, which asks for nothing"
        for limit in budget.limits
        if limit.relative and limit.value > 1
    )
    return found


def _untrained_accuracy(task: CheckedTask, model: nn.Module) -> float | None:
    """The best metric of a few copies with freshly drawn weights, None where its layers cannot draw them."""
    from edgeprune.training_data import reproducible

    twin = copy.deepcopy(model)
    layers = [module for module in twin.modules() if callable(getattr(module, "reset_parameters", None))]
    if not layers:
        return None
    found = []
    for draw in range(_DRAWS):
        with reproducible(draw):
            for layer in layers:
                layer.reset_parameters()  # type: ignore[operator]
            found.append(task.evaluate(twin.eval()))
    return max(found)
