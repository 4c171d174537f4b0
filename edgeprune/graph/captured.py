"""A captured graph and what can be done with it: groups, candidates, verified pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.graph.cost import Cost, cost_of
from edgeprune.graph.coupling import Coupling, Granularity, couple
from edgeprune.graph.groups import ChannelGroup, find_groups
from edgeprune.graph.surgery import cut
from edgeprune.graph.verify import Verification, verify
from edgeprune.records.candidate import Candidate
from edgeprune.training_data import ImportanceContext

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

__all__ = ["Captured", "Prunable", "Pruned"]


class Prunable:
    """An exported ATen program with its parameters: what a captured and a pruned model have in common.

    `module` trains, evaluates (`.train()`, `.eval()`) and exports like any module; `example_inputs` are the
    inputs that it was captured with; `batch_dynamic` tells whether their first dimension may change.
    """

    def __init__(
        self,
        module: GraphModule,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        batch_dynamic: bool = True,
        granularity: Granularity = "outer",
    ) -> None:
        self.module = module
        self.example_inputs = example_inputs
        self.batch_dynamic = batch_dynamic
        self._granularity = granularity

    @cached_property
    def _coupling(self) -> Coupling:
        return couple(self.module, self._granularity)

    @cached_property
    def _groups(self) -> tuple[tuple[ChannelGroup, ...], tuple[ChannelGroup, ...]]:
        return find_groups(self._coupling)

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The prunable channel groups, in graph order."""
        return self._groups[0]

    @property
    def frozen(self) -> tuple[ChannelGroup, ...]:
        """What cannot be pruned, with the reason."""
        return self._groups[1]

    def cost(self) -> Cost:
        """Parameters, multiply-accumulates and peak activation memory at batch 1 (estimates)."""
        return cost_of(self.module)

    def uniform(
        self,
        ratio: float,
        importance: str = "l2",
        *,
        round_to: int = 1,
        seed: int = 0,
        context: ImportanceContext | None = None,
    ) -> Candidate:
        """Remove the share `ratio` (0 to 1) of the units of every group, the least important ones first.

        The kept widths are rounded to multiples of `round_to`, and at least one unit (or `round_to`) stays.
        `context` gives the data and loss that an importance with gradients needs; `seed` is for the others.
        """
        if not 0 <= ratio < 1:
            raise UsageError(f"the pruning ratio {ratio} is not between 0 and 1", hint="0.5 removes half of the units")
        measure = registry.resolve("importances", importance)()
        scores = measure.score(self.module, self.groups, context or ImportanceContext(seed=seed))
        kept: dict[str, tuple[int, ...]] = {}
        for group in self.groups:
            width = round(group.units * (1 - ratio) / round_to) * round_to
            width = min(max(width, round_to, 1), group.units)
            if width < group.units:
                order = np.argsort(-scores[group.name], kind="stable")
                kept[group.name] = tuple(sorted(int(unit) for unit in order[:width]))
        return Candidate(kept)

    def prune(self, candidate: Candidate, *, verify: bool = True) -> Pruned:
        """Build the smaller network that the candidate describes; this one is left as it is.

        Verified against the reference before it is handed out; raises VerificationError, UsageError.
        """
        keep = self._keep(candidate)
        module = cut(self.module, self._coupling, keep)
        checked = self.check(module, keep) if verify else None
        return Pruned(
            module,
            self.example_inputs,
            candidate,
            checked,
            batch_dynamic=self.batch_dynamic,
            granularity=self._granularity,
        )

    def check(self, pruned: GraphModule, keep: NDArray[np.bool_]) -> Verification:
        """Compare a pruned module with the reference of the kept atoms."""
        return verify(self.module, pruned, self._coupling, keep, self.example_inputs)

    def _keep(self, candidate: Candidate) -> NDArray[np.bool_]:
        """Per atom, whether it stays."""
        if candidate.dropped_blocks or candidate.sparsity:
            raise UsageError(
                "this candidate drops blocks or single weights", hint="only channel groups can be pruned yet"
            )
        groups = {group.name: group for group in self.groups}
        removed = np.zeros(int(self._coupling.component.max()) + 1, np.bool_)
        for name, units in candidate.kept.items():
            group = groups.get(name)
            if group is None:
                raise UsageError(f"no prunable channel group is named {name!r}", hint=f"groups: {', '.join(groups)}")
            if not units or units[0] < 0 or units[-1] >= group.units:
                raise UsageError(f"group {name!r}: the kept units must be a non-empty choice of 0 to {group.units - 1}")
            gone = np.setdiff1d(np.arange(group.units), np.asarray(units))
            member = group.members[0]
            atoms = self._coupling.parameters[member.parameter].axis(member.dim)
            if atoms is not None:
                removed[self._coupling.component[atoms.atoms[member.indices[gone, 0]]]] = True
        return ~removed[self._coupling.component]


class Captured(Prunable):
    """A model as it was captured."""

    def candidate(self, kept: Mapping[str, Sequence[int]]) -> Candidate:
        """A candidate from the kept units per group; groups that are not named keep all. Raises UsageError."""
        for name, units in kept.items():
            if not _are_indices(units):
                raise UsageError(f"group {name!r}: the kept units are a list of indices, not {units!r}")
        candidate = Candidate({name: tuple(sorted({int(u) for u in units})) for name, units in kept.items()})
        self._keep(candidate)
        return candidate


class Pruned(Prunable):
    """A smaller network; it can be trained, exported, saved and pruned further."""

    def __init__(
        self,
        module: GraphModule,
        example_inputs: tuple[torch.Tensor, ...],
        candidate: Candidate,
        verification: Verification | None,
        *,
        batch_dynamic: bool = True,
        granularity: Granularity = "outer",
    ) -> None:
        super().__init__(module, example_inputs, batch_dynamic=batch_dynamic, granularity=granularity)
        self.candidate = candidate
        self.verification = verification

    def save(self, path: Path | str) -> None:
        """Write a `.pt2` file that `edgeprune.load` reads without the user's class and without pickle."""
        from edgeprune.graph.storage import save

        save(self, Path(path))


def _are_indices(units: object) -> bool:
    if not isinstance(units, Sequence | np.ndarray):
        return False
    return all(isinstance(unit, int | np.integer) and not isinstance(unit, bool) for unit in units)
