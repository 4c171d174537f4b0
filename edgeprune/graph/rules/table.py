"""The rule table: operator name -> rule. What is not in it is a barrier."""

from __future__ import annotations

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Labels
from edgeprune.graph.rules import (
    contraction,
    convolution,
    elementwise,
    movement,
    normalization,
    rearranging,
    recurrent,
    spatial,
)

__all__ = ["BARRIER", "RULES"]


def barrier(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """An operator without a rule: never a guess."""
    for _, labels in call.tensors():
        for axis in labels.axes:
            coupling.freeze(axis.atoms, "has no pruning rule")
    outputs = [Labels(shape) for shape in call.shapes]
    several = isinstance(call.node.meta["val"], list | tuple)
    return outputs if several else outputs[0]


BARRIER: Rule = barrier

RULES: dict[str, Rule] = {
    **movement.RULES,
    **rearranging.RULES,
    **contraction.RULES,
    **convolution.RULES,
    **recurrent.RULES,
    **elementwise.RULES,
    **normalization.RULES,
    **spatial.RULES,
}
