"""A score per unit: the seam of importances, what they have in common, and the random one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph.groups import ChannelGroup, Member
from edgeprune.training_data import ImportanceContext

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Importance", "ImportanceContext", "Random", "Scores", "arrays", "tensors", "unit_sums"]

Scores = dict[str, NDArray[np.float64]]
_ELEMENTS_AT_ONCE = 1 << 16


@runtime_checkable
class Importance(Protocol):
    """Scores units. The same module, groups, data and seed give the same scores, bit for bit."""

    needs_data: bool  # True: needs `batches` and `loss` of the context

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:
        """Per group name an array of shape (units,); higher is kept longer. Leaves the module as it was."""


class Random:
    """Uniform in [0, 1), drawn for each group from (seed, group name): the order of the groups does not matter."""

    needs_data = False

    def score(self, module: nn.Module, groups: Sequence[ChannelGroup], context: ImportanceContext) -> Scores:  # noqa: ARG002
        scores: Scores = {}
        for group in groups:
            digest = hashlib.sha256(f"{context.seed}/{group.name}".encode()).digest()
            scores[group.name] = np.random.default_rng(int.from_bytes(digest, "big")).random(group.units)
        return scores


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers by every dotted name that they have (shared ones have several)."""
    return {
        **dict(module.named_buffers(remove_duplicate=False)),
        **dict(module.named_parameters(remove_duplicate=False)),
    }


def arrays(weights: Mapping[str, torch.Tensor], names: Iterable[str]) -> dict[str, NDArray[np.floating]]:
    """The named tensors as NumPy arrays, without copying where they are float32 or float64 in host memory."""
    import torch

    found = {}
    for name in dict.fromkeys(names):
        tensor = weights[name].detach().cpu()
        found[name] = (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.double()).numpy()
    return found


def unit_sums(
    values: NDArray[np.floating],
    member: Member,
    term: Callable[[NDArray[np.floating]], NDArray[np.floating]] | None = None,
) -> NDArray[np.float64]:
    """Sum of `term(values)` (the shape of the member's tensor) over all elements that belong to each unit; (units,).

    In float64. NumPy sums in one thread in a fixed order, so the result does not depend on the number of threads.
    It goes by blocks of rows, whose terms fit the processor's cache.
    """
    others = tuple(axis for axis in range(values.ndim) if axis != member.dim)
    rows = max(1, _ELEMENTS_AT_ONCE * len(values) // max(1, values.size))
    sums = []
    for first in range(0, len(values), rows):
        block = values[first : first + rows]
        sums.append((block if term is None else term(block)).sum(axis=others, dtype=np.float64))
    per_index = np.concatenate(sums) if member.dim == 0 else np.sum(sums, axis=0)
    total: NDArray[np.float64] = per_index[member.indices].sum(axis=1)
    return total
