"""Convolutions: channels are contracted or passed on; in grouped ones, what goes, goes in every group or as a group."""

from __future__ import annotations

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Atoms, Axis, Labels
from edgeprune.graph.rules.contraction import product, with_bias

__all__ = ["RULES"]

_FIXED = "convolves it with a fixed weight"
_OUT_OF_REACH = "convolves a fixed dimension in groups"


def convolution(coupling: Coupling, call: Call) -> Labels:
    """`conv1d/2d/3d(input (n, c, …), weight (o, c/groups, …), bias (o), …, groups)`."""
    source, weight, pointwise = _prepared(coupling, call)
    groups = int(call["groups"])
    if groups == 1:
        return _whole(coupling, call, source, weight, order="oc", pointwise=pointwise)
    source, inputs = coupling.along(source, 1)
    weight, outputs = coupling.along(weight, 0)
    weight, taps = coupling.along(weight, 1)
    if inputs is None:
        for atoms in (outputs, taps):
            if atoms is not None:
                coupling.freeze(atoms, _OUT_OF_REACH)
        return with_bias(coupling, call, Labels(call.shape, source.axes), 1)
    if source.shape[1] == groups:  # depthwise: each input channel has its own outputs
        if outputs is not None:
            coupling.tie(inputs[:, None], outputs.reshape(groups, -1))
        else:
            coupling.freeze(inputs, _FIXED)
    else:
        if taps is None or (outputs is None and coupling.granularity.grouped == "groups"):
            coupling.freeze(inputs, _FIXED)
        _in_groups(coupling, inputs, outputs, taps, groups)
        _contracts(coupling, call, 0, 1)
    axes = [axis for axis in source.axes if axis.dims[0] > 1]
    if outputs is not None:
        axes.append(Axis((1,), outputs))
    return with_bias(coupling, call, Labels(call.shape, tuple(axes)), 1)


def transposed(coupling: Coupling, call: Call) -> Labels:
    """`conv_transpose1d/2d/3d(input (n, c, …), weight (c, o/groups, …), bias (o), …, groups)`."""
    source, weight, pointwise = _prepared(coupling, call)
    groups = int(call["groups"])
    if groups == 1:
        return _whole(coupling, call, source, weight, order="co", pointwise=pointwise)
    source, inputs = coupling.along(source, 1)
    weight, kernels = coupling.along(weight, 0)
    weight, taps = coupling.along(weight, 1)
    if inputs is None or kernels is None:
        for atoms in (inputs, kernels, taps):
            if atoms is not None:
                coupling.freeze(atoms, _OUT_OF_REACH)
        axes = [axis for axis in source.axes if axis.dims[0] > 1]
        return with_bias(coupling, call, Labels(call.shape, tuple(axes)), 1)
    coupling.tie(inputs, kernels)
    outputs = coupling.fresh(call.shape[1])
    if taps is None and weight.shape[1] > 1:
        coupling.freeze(outputs, _FIXED)
    if source.shape[1] == groups:  # depthwise
        coupling.tie(inputs[:, None], outputs.reshape(groups, -1))
        if taps is not None:
            coupling.freeze(taps, "shares it between groups that go one by one")
    else:
        # Here the taps are outputs: the same positions of every group.
        _in_groups(coupling, inputs, outputs, None, groups)
        if taps is not None and coupling.granularity.grouped == "positions":
            coupling.tie(taps, outputs.reshape(groups, -1))
        elif taps is not None:
            coupling.freeze(taps, "shares it between groups that go one by one")
        _contracts(coupling, call, 1, 0)
    axes = [axis for axis in source.axes if axis.dims[0] > 1]
    return with_bias(coupling, call, Labels(call.shape, (*axes, Axis((1,), outputs))), 1)


def _prepared(coupling: Coupling, call: Call) -> tuple[Labels, Labels, list[bool]]:
    """Input and weight, of which only the channels may go, and whether the spatial dimensions are pointwise."""
    source: Labels = call["input"]
    weight: Labels = call["weight"]
    if len(source.shape) < len(weight.shape):  # one sample without a batch dimension
        source = coupling.freeze_axes(source, range(len(source.shape)), "works on it without a batch dimension")
    pointwise = _pointwise(call, weight)
    slid = [d for d in range(2, len(source.shape)) if not pointwise[d - 2]]
    source = coupling.freeze_axes(source, [0, *slid], "slides over it")
    return source, coupling.freeze_axes(weight, range(2, len(weight.shape)), "slides over it"), pointwise


def _pointwise(call: Call, weight: Labels) -> list[bool]:
    """Per spatial dimension, whether each position along it is mapped to one of its own, so that it may go."""
    pointwise = [size == 1 for size in weight.shape[2:]]
    if any(pointwise):
        for name, wanted in (("stride", 1), ("padding", 0), ("output_padding", 0)):
            values = call.get(name)
            if values is not None:
                pointwise = [one and _at(values, d) == wanted for d, one in enumerate(pointwise)]
    return pointwise


def _at(values: object, spatial: int) -> object:
    if isinstance(values, list | tuple):
        return values[spatial] if len(values) > 1 else values[0]
    return 0 if values in ("valid", "same") else values


def _whole(
    coupling: Coupling, call: Call, source: Labels, weight: Labels, *, order: str, pointwise: list[bool]
) -> Labels:
    """One group: a contraction over the channels. `order` names the first two dimensions of the weight."""
    batch = "" if len(source.shape) < len(weight.shape) else "n"
    source = coupling.along(source, len(batch))[0]
    weight = coupling.along(coupling.along(weight, 0)[0], 1)[0]
    spatial = len(weight.shape) - 2
    operands = [("input", source, batch + "c" + "xyz"[:spatial]), ("weight", weight, order + "uvw"[:spatial])]
    positions = "".join("xyz"[d] if one else "pqr"[d] for d, one in enumerate(pointwise))
    result = product(coupling, operands, batch + "o" + positions, call.shape)
    coupling.role(call.node_of("weight"), order.index("o"), "producer")
    coupling.role(call.node_of("weight"), order.index("c"), "consumer")
    return with_bias(coupling, call, result, len(batch))


def _in_groups(coupling: Coupling, inputs: Atoms, outputs: Atoms | None, taps: Atoms | None, groups: int) -> None:
    ends = [atoms.reshape(groups, -1) for atoms in (inputs, outputs) if atoms is not None]
    if coupling.granularity.grouped == "positions":
        for atoms in ends:
            coupling.tie(atoms[:1], atoms)
        if taps is not None:
            coupling.tie(taps, ends[0][0])
    else:
        for atoms in ends:
            coupling.tie(ends[0][:, :1], atoms)
        if taps is not None:
            coupling.freeze(taps, "shares it between groups that go as a whole")


def _contracts(coupling: Coupling, call: Call, outputs: int, inputs: int) -> None:
    coupling.contracted("weight", 1)
    coupling.role(call.node_of("weight"), outputs, "producer")
    coupling.role(call.node_of("weight"), inputs, "consumer")


RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed),
}
