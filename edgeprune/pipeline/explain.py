"""What of a model can be pruned, what cannot and why (`edgeprune explain`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.graph.captured import Prunable
    from edgeprune.graph.groups import ChannelGroup

__all__ = ["SCHEMA", "explain"]

SCHEMA = "edgeprune.explain/1"


def explain(captured: Prunable) -> dict[str, Any]:
    """A plain mapping: params, reachable (parameters that some group or block takes part of), groups, frozen, blocks.

    A parameter counts for every group that it is a member of, so that the groups' shares add up to more than one.
    """
    sizes = {name: parameter.numel() for name, parameter in captured.module.named_parameters()}
    total = sum(sizes.values())

    def share(names: Iterable[str]) -> float:
        return sum(sizes.get(name, 0) for name in set(names)) / total if total else 0.0

    def described(group: ChannelGroup) -> dict[str, Any]:
        members = [{"parameter": m.parameter, "dim": m.dim, "role": m.role} for m in group.members]
        held = share(member.parameter for member in group.members)
        return {"name": group.name, "units": group.units, "params_share": held, "members": members}

    in_groups = {member.parameter for group in captured.groups for member in group.members}
    in_blocks = {name for block in captured.blocks for name in block.parameters}
    return {
        "schema": SCHEMA,
        "params": total,
        "reachable_share": {"groups": share(in_groups), "groups_and_blocks": share(in_groups | in_blocks)},
        "groups": [described(group) for group in captured.groups],
        "frozen": [{**described(group), "reason": group.frozen} for group in captured.frozen],
        "blocks": [
            {"name": b.name, "params": b.params, "params_share": b.params / total, "macs_share": b.macs_share}
            for b in captured.blocks
        ],
    }
