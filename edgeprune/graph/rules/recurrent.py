"""Recurrent layers: hidden units go through all gates, directions and layers at once, as their state is one tensor."""

from __future__ import annotations

import numpy as np

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Atoms, Axis, Labels

__all__ = ["RULES"]


def recurrent(coupling: Coupling, call: Call) -> list[Labels]:
    """`lstm`, `gru`, `rnn_tanh`, `rnn_relu` (input (t, n, i), state (layers × directions, n, h), weights …).

    Per layer and direction: input weights (gates × h, i), hidden weights (gates × h, h), two biases (gates × h),
    and, where the state is projected, a projection (p, h).
    """
    if "input" not in call.arguments or not isinstance(call.get("params"), list):  # packed sequences
        for _, labels in call.tensors():
            coupling.freeze_axes(labels, range(len(labels.shape)), "has no pruning rule in this form")
        return [Labels(shape) for shape in call.shapes]
    parameters, nodes = call["params"], call.node_of("params")
    directions = 2 if call["bidirectional"] else 1
    cells = int(call["num_layers"]) * directions
    each = len(parameters) // cells
    biases = 2 if call["has_biases"] else 0
    projected = each > 2 + biases
    hidden = parameters[each - 1].shape[1] if projected else parameters[1].shape[1]
    state = coupling.fresh(hidden)  # the units; what the cell hands on is `passed`
    passed = coupling.fresh(parameters[each - 1].shape[0]) if projected else state
    source, arriving = coupling.along(call["input"], len(call["input"].shape) - 1)
    coupling.freeze_axes(source, range(len(source.shape) - 1), "steps along it")
    for cell in range(cells):
        if cell and cell % directions == 0:
            arriving = np.tile(passed, directions)
        own = parameters[cell * each : (cell + 1) * each]
        for place, (labels, node) in enumerate(zip(own, nodes[cell * each : (cell + 1) * each], strict=True)):
            coupling.role(node, 0, "producer")
            if place == 2 + biases:
                _tied(coupling, labels, 0, passed)
                _tied(coupling, labels, 1, state)
            else:
                _tied(coupling, labels, 0, np.tile(state, labels.shape[0] // hidden))
                if place < 2:
                    _tied(coupling, labels, 1, passed if place else arriving)
            if len(labels.shape) == 2:
                coupling.role(node, 1, "consumer")
    coupling.contracted("input", len(source.shape) - 1)
    coupling.contracted("params", 1)
    return _outputs(coupling, call, state, passed, directions)


def _tied(coupling: Coupling, labels: Labels, dim: int, atoms: Atoms | None) -> None:
    axis = labels.axis(dim)
    if axis is not None and atoms is not None:
        coupling.tie(axis.atoms, atoms)
    elif axis is not None:
        coupling.freeze(axis.atoms, "multiplies it with a fixed dimension")
    elif atoms is not None:
        coupling.freeze(atoms, "has a single unit")


def _outputs(coupling: Coupling, call: Call, state: Atoms, passed: Atoms, directions: int) -> list[Labels]:
    """The sequence (…, directions × h), and the last states (layers × directions, n, h): hidden, then cell."""
    sequence = Labels(call.shapes[0], (Axis((len(call.shapes[0]) - 1,), np.tile(passed, directions)),))
    return [sequence, *_states(coupling, call, (passed, state), call.shapes[1:])]


def _states(
    coupling: Coupling, call: Call, units: tuple[Atoms, ...], shapes: tuple[tuple[int, ...], ...]
) -> list[Labels]:
    """The last states, tied to the first ones: hidden, then cell."""
    initial = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    outputs = []
    for start, atoms, shape in zip(initial, units, shapes, strict=False):
        last = len(start.shape) - 1
        labels, given = coupling.along(start, last)
        coupling.freeze_axes(labels, range(last), "steps along it")
        if given is None:
            coupling.freeze(atoms, "starts from a fixed state")
        else:
            coupling.tie(given, atoms)
        outputs.append(Labels(shape, (Axis((len(shape) - 1,), atoms),)))
    return outputs


def cell(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """One step: `lstm_cell(input (n, i), [hidden, cell], w_ih, w_hh, b_ih, b_hh)`, `gru_cell`, `rnn_tanh_cell` …"""
    hidden = call["w_hh"].shape[1]
    state = coupling.fresh(hidden)
    source, arriving = coupling.along(call["input"], -1)
    coupling.freeze_axes(source, range(len(source.shape) - 1), "steps along it")
    for name, contracted in (("w_ih", arriving), ("w_hh", state), ("b_ih", None), ("b_hh", None)):
        labels: Labels | None = call.get(name)
        if labels is None:
            continue
        _tied(coupling, labels, 0, np.tile(state, labels.shape[0] // hidden))
        coupling.role(call.node_of(name), 0, "producer")
        if len(labels.shape) > 1:
            _tied(coupling, labels, 1, contracted)
            coupling.role(call.node_of(name), 1, "consumer")
            coupling.contracted(name, 1)
    outputs = _states(coupling, call, (state, state), call.shapes)
    return outputs if isinstance(call.node.meta["val"], list | tuple) else outputs[0]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), cell),
}
