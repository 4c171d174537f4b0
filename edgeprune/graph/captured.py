"""A captured graph and what can be done with it: groups, candidates, verified pruning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.graph.batch import coupled_at
from edgeprune.graph.blocks import Block, dropped_branches, find_blocks, named_blocks, without_blocks
from edgeprune.graph.cost import Cost, cost_of
from edgeprune.graph.coupling import Coupling, Granularity, couple
from edgeprune.graph.groups import ChannelGroup, find_groups
from edgeprune.graph.selection import Compare, kept_units
from edgeprune.graph.surgery import cut
from edgeprune.graph.verify import Verification, verify
from edgeprune.records.candidate import Candidate
from edgeprune.training_data import ImportanceContext

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.fx import GraphModule

__all__ = ["Captured", "Prunable", "Pruned"]


_DERIVED = ("_coupling", "_couplings", "_groups", "blocks")  # from the graph


class Prunable:
    """An exported ATen program with its parameters: what a captured and a pruned model have in common.

    `module` trains, evaluates (`.train()`, `.eval()`) and exports like any module; `example_inputs` are the
    inputs that it was captured with; `batch_dynamic` tells whether their first dimension may change.
    `input_names` and `output_names` are those of the ONNX file that it was captured from, and go into the exported
    one; empty otherwise.
    """

    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    def __init__(
        self,
        module: GraphModule,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        batch_dynamic: bool = True,
        granularity: Granularity = Granularity(),  # noqa: B008  frozen
    ) -> None:
        self.module = module
        self.example_inputs = example_inputs
        self.batch_dynamic = batch_dynamic
        self.granularity = granularity

    @cached_property
    def _coupling(self) -> Coupling:
        return couple(self.module, self.granularity)

    @cached_property
    def _couplings(self) -> dict[int, Coupling]:
        return {}

    def _coupled_at(self, rows: int) -> Coupling:
        """The coupling at another batch."""
        if rows not in self._couplings:
            self._couplings[rows] = coupled_at(self.module, self._coupling, rows)
        return self._couplings[rows]

    def coupling_at(self, rows: int | None = None) -> Coupling:
        """What depends on what, at the batch of the capture or another one."""
        return self._coupling if rows is None else self._coupled_at(rows)

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

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks that can be dropped, in graph order; an outer one follows its inner ones."""
        return find_blocks(self.module)

    def __repr__(self) -> str:
        frozen = f", {len(self.frozen)} frozen" if self.frozen else ""
        parameters = sum(parameter.numel() for parameter in self.module.parameters())
        groups = f"{len(self.groups)} channel group{'' if len(self.groups) == 1 else 's'}"
        return f"{type(self).__name__}({parameters:,} parameters, {groups}{frozen}{self._about()})"

    def _about(self) -> str:
        """What `repr` says more."""
        return ""

    def cost(self) -> Cost:
        """Parameters, multiply-accumulates and peak activation memory at batch 1 (estimates)."""
        return cost_of(self.module)

    def select(
        self,
        ratio: float,
        *,
        importance: registry.Spec | object = "l2",
        compare: Compare = "layer",
        ignored: str | nn.Module | Iterable[str | nn.Module] = (),
        min_width: int = 1,
        min_share: float = 0.0,
        round_to: int | Mapping[str, int] = 1,
        seed: int = 0,
        context: ImportanceContext | None = None,
    ) -> Candidate:
        """Remove the share `ratio` (0 to 1) of the units, the least important ones first.

        `importance`: "l2", with parameters "l1:members=all,normalise=max" or {"name": "l1", "members": "all"}, or an
        object. `compare`: with which units a unit competes, those of its "layer" (every group loses the same share),
        all ("global"), or those of groups of the same structure ("isomorphic", Fang et al. 2024, arXiv:2407.04616).
        `ignored`: layers that keep their output channels, as patterns of layer, parameter or group names ("head.*")
        or as modules of the captured model; the ratio is of the other groups.
        `min_width` channels and the share `min_share` of the units stay in every group, and always one unit.
        `round_to`: kept widths are multiples of so many channels, or the full width; or one number per pattern.
        `context` gives the data and loss that some importances need; `seed` is for the others. Raises UsageError.
        """
        measure = registry.create("importances", importance)
        scores = measure.score(self.module, self.groups, context or ImportanceContext(seed=seed))
        kept = kept_units(
            self.module,
            self.groups,
            scores,
            ratio,
            compare=compare,
            ignored=ignored,
            min_width=min_width,
            min_share=min_share,
            round_to=round_to,
        )
        return Candidate(kept)

    def uniform(
        self,
        ratio: float,
        importance: registry.Spec | object = "l2",
        *,
        round_to: int = 1,
        seed: int = 0,
        context: ImportanceContext | None = None,
    ) -> Candidate:
        """Remove the share `ratio` of the units of every group: `select` in its simple form."""
        return self.select(ratio, importance=importance, round_to=round_to, seed=seed, context=context)

    def prune(self, candidate: Candidate, *, verify: bool = True) -> Pruned:
        """Build the smaller network that the candidate describes; this one is left as it is.

        Verified against the reference before it is handed out; raises VerificationError, UsageError.
        """
        keep = self._keep(candidate)
        dropped = named_blocks(self.blocks, candidate.dropped_blocks) if candidate.dropped_blocks else ()
        module = cut(self.module, self._coupling, keep)
        if dropped:
            module = without_blocks(module, self.module.graph, dropped)
        checked = self.check(module, keep, dropped) if verify else None
        pruned = Pruned(
            module,
            self.example_inputs,
            candidate,
            checked,
            batch_dynamic=self.batch_dynamic,
            granularity=self.granularity,
        )
        pruned.input_names, pruned.output_names = self.input_names, self.output_names
        return pruned

    def check(self, pruned: GraphModule, keep: NDArray[np.bool_], dropped: Sequence[Block] = ()) -> Verification:
        """Compare a pruned module with the reference of the kept atoms and the dropped blocks.

        At the batch of the graph and, where it is dynamic, at another one. Raises VerificationError.
        """
        branches = dropped_branches(self.module.graph, dropped)
        return verify(
            self.module,
            pruned,
            self._coupling,
            keep,
            self.example_inputs,
            dropped=branches,
            coupled_at=self._coupled_at if self.batch_dynamic else None,
        )

    def kept_atoms(self, candidate: Candidate) -> tuple[Coupling, NDArray[np.bool_]]:
        """The coupling, and per atom of it whether the candidate keeps it; raises UsageError."""
        return self._coupling, self._keep(candidate)

    def graph_changed(self) -> None:
        """Forget what was derived from the graph: it was edited."""
        for derived in _DERIVED:
            self.__dict__.pop(derived, None)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: not what refers to the nodes of this very graph."""
        return {name: value for name, value in self.__dict__.items() if name not in _DERIVED}

    def _keep(self, candidate: Candidate) -> NDArray[np.bool_]:
        """Per atom, whether it stays."""
        if candidate.sparsity:
            raise UsageError("this candidate drops single weights", hint="channel groups and blocks can be pruned")
        groups = {group.name: group for group in self.groups}
        removed = np.zeros(int(self._coupling.component.max()) + 1, np.bool_)
        for name, units in candidate.kept.items():
            group = groups.get(name)
            if group is None:
                raise UsageError(f"no prunable channel group is named {name!r}", hint=f"groups: {', '.join(groups)}")
            chosen = np.asarray(units)
            if not units or chosen.min() < 0 or chosen.max() >= group.units:
                raise UsageError(f"group {name!r}: the kept units must be a non-empty choice of 0 to {group.units - 1}")
            gone = np.ones(group.units, np.bool_)
            gone[chosen] = False
            member = group.members[0]
            atoms = self._coupling.parameters[member.parameter].axis(member.dim)
            if atoms is not None:
                removed[self._coupling.component[atoms.atoms[member.indices[gone, 0]]]] = True
        return ~removed[self._coupling.component]


class Captured(Prunable):
    """A model as it was captured."""

    def candidate(
        self, kept: Mapping[str, Sequence[int]] = MappingProxyType({}), *, dropped_blocks: Iterable[str] = ()
    ) -> Candidate:
        """A candidate from the kept units per group (those that are not named keep all) and the blocks that go.

        Raises UsageError.
        """
        for name, units in kept.items():
            if not _are_indices(units):
                raise UsageError(f"group {name!r}: the kept units are a list of indices, not {units!r}")
        blocks = tuple(block.name for block in named_blocks(self.blocks, dropped_blocks))
        units_of = {name: tuple(sorted({int(u) for u in units})) for name, units in kept.items()}
        candidate = Candidate(units_of, blocks)
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
        granularity: Granularity = Granularity(),  # noqa: B008  frozen
    ) -> None:
        super().__init__(module, example_inputs, batch_dynamic=batch_dynamic, granularity=granularity)
        self.candidate = candidate
        self.verification = verification

    def _about(self) -> str:
        verified = (
            "not verified" if self.verification is None else f"verified to {self.verification.relative_error:.1g}"
        )
        return f", candidate {self.candidate.id}, {verified}"

    def apply_to(self, model: nn.Module) -> None:
        """Write the pruned weights and sizes into the model that was captured, and prove that it computes the same.

        Raises UsageError, with the line of its forward where a size is written out; the model is then as it was.
        """
        from edgeprune.graph.writeback import write_back

        write_back(self, model)

    def save(self, path: Path | str) -> None:
        """Write a `.pt2` file that `edgeprune.load` reads without the user's class and without pickle."""
        from edgeprune.graph.storage import save

        save(self, Path(path))


def _are_indices(units: object) -> bool:
    if not isinstance(units, Sequence | np.ndarray):
        return False
    return all(isinstance(unit, int | np.integer) and not isinstance(unit, bool) for unit in units)
