"""Normalisations tie their parameters to the normalised axis; where they mix it, it is noted for the reference."""

from __future__ import annotations

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Labels
from edgeprune.graph.rules.elementwise import broadcast

__all__ = ["RULES"]


def batch_norm(coupling: Coupling, call: Call) -> Labels:
    """Per channel (dimension 1): scale, shift and statistics are tied to it."""
    source: Labels = call["input"]
    source, atoms = coupling.along(source, 1)
    if call.get("training") is True and call.get("running_mean") is None:  # statistics of this very tensor
        others = {d for axis in source.axes for d in axis.dims if d != 1}
        for axis in source.axes:
            if axis.is_joint:
                source = coupling.separate(source, axis, [coupling.deciding(axis)])
        coupling.mixed("input", source, sorted(d for d in others if source.axis(d) is not None))
    for name in ("weight", "bias", "running_mean", "running_var"):
        labels: Labels | None = call.get(name)
        if labels is None:
            continue
        for axis in labels.axes:
            if atoms is None:
                coupling.freeze(axis.atoms, "normalises a fixed dimension")
            else:
                coupling.tie(axis.atoms, atoms)
    return Labels(call.shape, source.axes)


def layer_norm(coupling: Coupling, call: Call) -> Labels:
    """`layer_norm`, `rms_norm`: over the last dimensions, which it mixes."""
    source: Labels = call["input"]
    count = len(call["normalized_shape"])
    first = len(source.shape) - count
    parameters = [call[name] for name in ("weight", "bias") if call.get(name) is not None]
    if parameters:
        source = broadcast(coupling, [source, *parameters], source.shape)
    for axis in source.axes:
        inside = [d for d in axis.dims if d >= first]
        if axis.is_joint and 0 < len(inside) < len(axis.dims):
            source = coupling.separate(source, axis, [coupling.deciding(axis)])
    mixed = [d for axis in source.axes for d in axis.dims if d >= first]
    if len(mixed) > 1 or (mixed and count > 1):
        return coupling.freeze_axes(source, mixed, "normalises over several dimensions at once")
    coupling.mixed("input", source, mixed)
    return Labels(call.shape, source.axes)


def group_norm(coupling: Coupling, call: Call) -> Labels:
    """Over the channels (dimension 1) of each group: the same positions go in every group."""
    source: Labels = call["input"]
    groups = int(call["num_groups"])
    source = coupling.freeze_axes(source, [0, *range(2, len(source.shape))], "normalises over it")
    source, atoms = coupling.along(source, 1)
    for name in ("weight", "bias"):
        labels: Labels | None = call.get(name)
        for axis in labels.axes if labels is not None else ():
            if atoms is None:
                coupling.freeze(axis.atoms, "normalises a fixed dimension")
            else:
                coupling.tie(axis.atoms, atoms)
    if atoms is not None and groups != len(atoms):
        each = atoms.reshape(groups, -1)
        coupling.tie(each[:1] if coupling.granularity.grouped == "positions" else each[:, :1], each)
        coupling.mixed("input", source, [1])
    return Labels(call.shape, source.axes)


def instance_norm(coupling: Coupling, call: Call) -> Labels:
    """Per sample and channel (dimension 1), over all others unless it has statistics; else like batch-norm."""
    source: Labels = call["input"]
    if call["use_input_stats"]:
        call.arguments["input"] = coupling.freeze_axes(source, range(2, len(source.shape)), "normalises over it")
    return batch_norm(coupling, call)


def weight_norm(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """`_weight_norm(v, g, dim)`: the norm of v over all dimensions but one, of what is kept."""
    direction: Labels = call["v"]
    dim = int(call.get("dim", 0)) % len(direction.shape)
    result = broadcast(coupling, [direction, call["g"]], direction.shape)
    coupling.mixed("v", direction, [d for axis in direction.axes for d in axis.dims if d != dim])
    outputs = [result, Labels(call["g"].shape, call["g"].axes)][: len(call.shapes)]
    return outputs if isinstance(call.node.meta["val"], list | tuple) else result


def ranked(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """`sort`, `topk` …: along their dimension positions have a meaning; the others pass on."""
    _, source = call.tensors()[0]
    source = coupling.freeze_axes(source, [int(call.get("dim", -1))], "ranks along it")
    outputs = [Labels(shape, source.axes) for shape in call.shapes]
    return outputs if isinstance(call.node.meta["val"], list | tuple) else outputs[0]


def softmax(coupling: Coupling, call: Call) -> Labels:
    """Mixes its dimension in a way that no smaller network repeats: frozen there, passed on elsewhere."""
    source: Labels = call["self"]
    source = coupling.freeze_axes(source, [int(call["dim"])], "normalises over it")
    return Labels(call.shape, source.axes)


RULES: dict[str, Rule] = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "softmax": softmax,
    "log_softmax": softmax,
    **dict.fromkeys(("cumsum", "cumprod", "logcumsumexp"), softmax),
    **dict.fromkeys(("sort", "argsort", "topk"), ranked),
    **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), weight_norm),
}
