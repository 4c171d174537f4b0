"""How much of a network can be pruned away: what the benchmarks of coverage share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeprune.graph.captured import Captured

__all__ = ["reachable"]


def reachable(captured: Captured) -> float:
    """Share of the parameters' elements that some unit's removal would take away."""
    parameters = dict(captured.module.named_parameters())
    fixed: dict[str, list[NDArray[np.bool_]]] = {
        name: [np.ones(n, bool) for n in p.shape] for name, p in parameters.items()
    }
    for group in captured.groups:
        for member in group.members:
            if member.parameter in fixed and group.units > 1:
                fixed[member.parameter][member.dim][member.indices.ravel()] = False
    total = sum(p.numel() for p in parameters.values())
    stuck = sum(float(np.prod([f.sum() for f in masks])) for masks in fixed.values())
    return float(1 - stuck / total)
