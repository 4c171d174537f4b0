"""How close a pruned network's outputs are to the dense one's: the metric where there is no task and no label."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgeprune.graph.captured import Prunable
    from edgeprune.pipeline.calibration import Batch

__all__ = ["OutputFidelity", "fidelity", "module_fidelity"]


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output. What does not apply to it, or is not finite, is None."""

    name: str
    agreement: float | None  # share of the examples with the same top-1 class; of the same values, where integers
    relative_error: float | None  # ‖pruned - dense‖ / ‖dense‖ over all examples (Frobenius)


def fidelity(pruned: Prunable, dense: Prunable, batches: Iterable[Batch]) -> tuple[OutputFidelity, ...]:
    """Compare the outputs, in evaluation mode, one after the other; `batches` are tuples of inputs.

    The top-1 class is that of an output (examples, classes), with two classes or more.
    """
    return module_fidelity(pruned.module, dense, batches)


def module_fidelity(module: nn.Module, dense: Prunable, batches: Iterable[Batch]) -> tuple[OutputFidelity, ...]:
    """`fidelity` of any module that is called, and answers, as the dense one."""
    import torch
    from torch.utils._pytree import tree_leaves

    from edgeprune.graph.capture import evaluation

    sums: list[_Sums] = []
    with evaluation(dense.module), evaluation(module), torch.no_grad():
        for batch in batches:
            theirs, ours = (tree_leaves(net(*batch)) for net in (dense.module, module))
            sums = sums or [_Sums() for _ in theirs]
            for total, expected, found in zip(sums, theirs, ours, strict=True):
                total.add(expected, found)
    names = dense.output_names if len(dense.output_names) == len(sums) else tuple(map(str, range(len(sums))))
    return tuple(OutputFidelity(name, *total.figures()) for name, total in zip(names, sums, strict=True))


@dataclass(slots=True)
class _Sums:
    difference: float = 0.0
    size: float = 0.0
    same: int = 0
    compared: int = 0
    has_error: bool = False

    def add(self, dense: Any, pruned: Any) -> None:
        import torch

        if not isinstance(dense, torch.Tensor):
            return
        if not dense.is_floating_point():
            self._compare(dense, pruned)
            return
        self.has_error = True
        self.difference += float((pruned.double() - dense.double()).square().sum())
        self.size += float(dense.double().square().sum())
        if dense.dim() == 2 and dense.shape[1] > 1:
            self._compare(dense.argmax(1), pruned.argmax(1))

    def _compare(self, dense: torch.Tensor, pruned: torch.Tensor) -> None:
        self.same += int((dense == pruned).sum())
        self.compared += dense.numel()

    def figures(self) -> tuple[float | None, float | None]:
        """Agreement and relative error."""
        agreement = self.same / self.compared if self.compared else None
        if not self.has_error or not math.isfinite(self.difference) or (self.size == 0 and self.difference > 0):
            return agreement, None
        return agreement, math.sqrt(self.difference / self.size) if self.size else 0.0
