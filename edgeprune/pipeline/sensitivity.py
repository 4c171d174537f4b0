"""How much each narrowing and each dropped block would hurt, one at a time: what a search minimises the sum of.

Every group is narrowed alone to a few of its widths (batch-norm statistics re-estimated), and its outputs on training
batches are compared with the dense model's: the divergence of distillation, which needs no labels and, unlike
accuracy, is not coarse. Between the widths that were tried it is interpolated, never falling as width falls. Compare
NetAdapt (Yang et al. 2018, arXiv:1804.03230) and the layer-wise sensitivities of Li et al. 2017 (arXiv:1608.08710).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import TaskError
from edgeprune.pipeline.kept import keep, read_kept
from edgeprune.pipeline.sensitivity_cache import SensitivityCache, digest_of
from edgeprune.progress import SILENT, Progress
from edgeprune.records.candidate import Candidate
from edgeprune.search.base import BlockSpace, GroupSpace, SearchSpace

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.pipeline.task import CheckedTask
    from edgeprune.recovery.distillation import Calls

__all__ = ["interpolated", "tried_widths", "with_sensitivities"]

SCHEMA = "edgeprune.sensitivities/1"
_SHARES = (0.75, 0.5, 0.25)  # of a group's units that are kept when it is tried, and its least width
_STATISTICS_BATCHES = 4  # for batch-norm statistics
_JUDGING_BATCHES = 4
_MOST_EXAMPLES = 512  # judged at the most: large batches are not needed in full
_NOT_FINITE = 100.0  # the loss of a network that overflows: more than two distributions in float32 diverge


def with_sensitivities(
    captured: Captured,
    task: CheckedTask,
    space: SearchSpace,
    path: Path,
    *,
    blocks: Mapping[str, Sequence[str]],
    seed: int,
    reuse: bool,
    progress: Progress = SILENT,
) -> SearchSpace:
    """The space with the losses of every group and of `blocks` (their names, and the groups inside each).

    What was tried is kept in `path`, point by point; with `reuse` it is read from there: a resumed run must see the
    same. What was judged before on this machine, of the same network on the same inputs, is not judged again. Where the
    task has no training part, the share of importance that goes stands for the loss, and blocks are left alone.
    Raises TaskError, VerificationError, StorageError.
    """
    if not task.trainable:
        return replace(space, groups=tuple(_by_importance(group) for group in space.groups))
    known = read_kept(path, SCHEMA, "sensitivities", _losses) if reuse and path.exists() else {}
    judge: _Judge | None = None
    tried = {
        group.name: {width: space.candidate({group.name: width}) for width in tried_widths(group)}
        for group in space.groups
    }
    dropped = {name: Candidate(dropped_blocks=(name,)) for name in blocks}
    wanted = [c for points in tried.values() for c in points.values()] + list(dropped.values())
    with progress.step("sensitivities", len(wanted)) as step:
        for candidate in wanted:
            if candidate.id not in known:
                judge = judge or _Judge(captured, task, seed)
                known[candidate.id] = judge.loss(candidate)
                keep(path, SCHEMA, losses=known)
            step.advance()
    if judge is not None:
        if judge.known:
            progress.say(f"{judge.known} of {len(wanted)} sensitivities known from before: {judge.cache.path}")
        for warning in judge.cache.warnings:
            progress.say(f"warning: {warning}")
    groups = tuple(
        replace(g, losses=interpolated(g.widths, {w: known[c.id] for w, c in tried[g.name].items()}))
        for g in space.groups
    )
    inside = tuple(BlockSpace(name, known[dropped[name].id], tuple(names)) for name, names in blocks.items())
    return replace(space, groups=groups, blocks=inside)


def tried_widths(group: GroupSpace) -> tuple[int, ...]:
    """The widths at which a group is tried: those next to a few shares of it, and the least one; never the dense."""
    narrower = group.widths[:-1]
    if not narrower:
        return ()
    near = {min(narrower, key=lambda width: (abs(width - share * group.units), width)) for share in _SHARES}
    return tuple(sorted({narrower[0], *near}))


def interpolated(widths: Sequence[int], losses: Mapping[int, float]) -> tuple[float, ...]:
    """The loss at each of `widths` (ascending, the last one dense, which loses nothing) from those at some of them.

    Linear between the known ones, which are first made to never rise with width (isotonic regression).
    """
    from scipy.optimize import isotonic_regression

    known = sorted(losses)
    x = [*known, widths[-1]]
    y = np.zeros(len(x))
    if known:
        falling = isotonic_regression([losses[width] for width in known], increasing=False).x
        y[:-1] = np.maximum(falling, 0.0)
    return tuple(float(value) for value in np.interp(widths, x, y))


def _by_importance(group: GroupSpace) -> GroupSpace:
    """The share of the group's importance that goes at each width."""
    scores = np.sort(np.asarray(group.scores, dtype=np.float64))[::-1]
    scores = scores - min(float(scores.min()), 0.0)
    total = float(scores.sum()) or 1.0
    return replace(group, losses=tuple(float(1 - scores[:width].sum() / total) for width in group.widths))


class _Judge:
    """How far a candidate's outputs are from the dense model's, after its batch-norm statistics are re-estimated."""

    def __init__(self, captured: Captured, task: CheckedTask, seed: int) -> None:
        from edgeprune.training_data import reproducible

        with reproducible(seed):
            batches = list(islice(task.train_batches(), _STATISTICS_BATCHES + _JUDGING_BATCHES))
        self._captured, self._task, self._seed = captured, task, seed
        self._statistics = batches[:_STATISTICS_BATCHES]
        self._judged = self._called(batches[_STATISTICS_BATCHES:] or batches)  # of few batches the same ones must do
        examples = 0
        for count, (args, kwargs, _) in enumerate(self._judged, start=1):
            examples += _rows((args, kwargs))
            if examples >= _MOST_EXAMPLES:
                self._judged = self._judged[:count]
                break
        inputs = [(args, kwargs) for args, kwargs, _ in self._judged]
        self.cache = SensitivityCache(digest_of(captured, [inputs, self._called_in_training()], seed))
        self.known = 0  # how many losses were there

    def _called(self, batches: Sequence[Any]) -> Calls:
        """What the dense model is called with for the batches, and gives."""
        import torch
        from torch.utils import _pytree as pytree

        from edgeprune.recovery.distillation import recorded
        from edgeprune.training_data import reproducible

        dense = self._captured.module.eval()
        with torch.no_grad(), reproducible(self._seed), recorded(dense) as calls:
            for batch in batches:
                self._task.loss(dense, batch)
        if not calls:
            raise TaskError("loss(model, batch) did not call the model", hint="call model(...) inside loss")
        given = [leaf for _, _, outputs in calls for leaf in pytree.tree_leaves(outputs)]
        if not all(bool(leaf.isfinite().all()) for leaf in given if isinstance(leaf, torch.Tensor)):
            raise TaskError(
                "the dense model's outputs on training batches are not all finite numbers",
                hint="a network that overflows cannot be compared with what is left of it: check its weights and data",
            )
        return calls

    def _called_in_training(self) -> list[Any]:
        """What a network is called with while its batch-norm statistics are re-estimated."""
        from edgeprune.recovery.batchnorm import reestimate
        from edgeprune.recovery.distillation import recorded
        from edgeprune.training_data import reproducible

        copy = self._captured.prune(Candidate(), verify=False).module
        with reproducible(self._seed), recorded(copy) as calls:
            reestimate(copy, self._statistics, self._task.loss)
        return [(args, kwargs) for args, kwargs, _ in calls]

    def loss(self, candidate: Candidate) -> float:
        """Of the cache, or judged now and kept there."""
        found = self.cache.get(candidate.id)
        if found is not None:
            self.known += 1
            return found
        found = self._judge(candidate)
        self.cache.put(candidate.id, found)
        return found

    def _judge(self, candidate: Candidate) -> float:
        import torch

        from edgeprune.recovery.batchnorm import reestimate
        from edgeprune.recovery.distillation import distances
        from edgeprune.training_data import reproducible

        module = self._captured.prune(candidate, verify=False).module
        with reproducible(self._seed):
            reestimate(module, self._statistics, self._task.loss)
        total = torch.zeros((), dtype=torch.float64)
        with torch.no_grad():
            for args, kwargs, wanted in self._judged:
                total += torch.stack(distances(module(*args, **kwargs), wanted, 1.0)).mean().double()
        loss = float(total) / len(self._judged)
        return loss if math.isfinite(loss) else _NOT_FINITE


def _rows(inputs: Any) -> int:
    """How many examples a call has: the rows of its first tensor."""
    import torch
    from torch.utils import _pytree as pytree

    first = next((leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1


def _losses(data: Any) -> dict[str, float]:
    return {str(name): float(value) for name, value in data["losses"].items()}
