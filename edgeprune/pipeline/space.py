"""The search space of a captured graph: groups with their importance, allowed widths, and the estimate of cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune import registry
from edgeprune.errors import DamagedError, UsageError
from edgeprune.graph.selection import channels_per_unit, ignored_groups
from edgeprune.importance.base import Importance, ImportanceContext, Scores
from edgeprune.pipeline.kept import keep, read_kept
from edgeprune.progress import SILENT, Progress
from edgeprune.records.candidate import Candidate
from edgeprune.search.base import GroupSpace, SearchSpace

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.graph.cost import Cost
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["importance_scores", "search_space", "widths"]

SCHEMA = "edgeprune.importance/1"
_BYTES = 4  # of a parameter, float32


def search_space(
    captured: Captured,
    scores: Mapping[str, NDArray[np.float64]],
    *,
    round_to: int,
    min_width: int,
    ignored: Sequence[str] = (),
) -> SearchSpace:
    """All prunable groups of the graph but those `ignored`; `round_to` and `min_width` count channels, not units."""
    whole = ignored_groups(captured.module, captured.groups, ignored)
    groups = tuple(
        GroupSpace(
            name=group.name,
            units=group.units,
            scores=tuple(float(score) for score in scores[group.name]),
            widths=widths(group.units, channels_per_unit(group), round_to, min_width),
        )
        for group in captured.groups
        if group.name not in whole
    )
    dense = captured.cost()
    cache: dict[str, Mapping[str, float]] = {}

    def estimate(candidate: Candidate) -> Mapping[str, float]:
        if candidate.id not in cache:
            cache[candidate.id] = _shares(captured.prune(candidate, verify=False).cost(), dense)
        return cache[candidate.id]

    return SearchSpace(groups, estimate)


def widths(units: int, channels: int, round_to: int, min_width: int) -> tuple[int, ...]:
    """The widths in units that a group of so many units of so many channels each may have, ascending.

    Multiples of `round_to` channels that are no narrower than `min_width` channels; the full width always.
    """
    step = round_to // math.gcd(round_to, channels)
    least = max(math.ceil(min_width / channels), 1)
    return (*(width for width in range(step, units, step) if width >= least), units)


def importance_scores(
    captured: Captured,
    task: CheckedTask,
    path: Path,
    *,
    name: str,
    seed: int,
    reuse: bool,
    progress: Progress = SILENT,
) -> Scores:
    """Scores per group, kept in `path`; with `reuse` those there: a resumed run must see the very same ones.

    Raises UsageError where the importance needs a training part that the task does not have, and StorageError.
    """
    if reuse and path.exists():
        return _read(path, captured)
    importance: Importance = registry.create("importances", name)
    if importance.needs_data and not task.trainable:
        raise UsageError(
            f"the importance {name!r} needs data, and {task.name} has no train_batches() and loss()",
            hint="add the two parts to the task, or choose l1, l2 or bn_scale",
        )
    context = ImportanceContext(
        seed=seed,
        batches=task.train_batches if task.trainable else None,
        loss=task.loss if task.trainable else None,
        progress=progress,
    )
    scores = importance.score(captured.module, captured.groups, context)
    keep(path, SCHEMA, importance=name, scores={key: value.tolist() for key, value in scores.items()})
    return scores


def _read(path: Path, captured: Captured) -> Scores:
    scores = read_kept(path, SCHEMA, "importance scores", _scores)
    if {name: len(values) for name, values in scores.items()} != {g.name: g.units for g in captured.groups}:
        message = f"{path}: the importance scores are of another model"
        raise DamagedError(message, hint="start a new run in another folder")
    return scores


def _scores(data: Any) -> Scores:
    return {name: np.asarray(values, dtype=np.float64) for name, values in data["scores"].items()}


def _shares(cost: Cost, dense: Cost) -> Mapping[str, float]:
    def share(part: float, whole: float) -> float:
        return part / whole if whole else 1.0

    def memory(c: Cost) -> float:
        return c.params * _BYTES + c.peak_activation_bytes

    return {
        "macs": share(cost.macs, dense.macs),
        "params": share(cost.params, dense.params),
        "activations": share(cost.peak_activation_bytes, dense.peak_activation_bytes),
        "memory": share(memory(cost), memory(dense)),
    }
