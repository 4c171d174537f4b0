"""Element-wise and broadcasting operators: index by index, what meets is tied."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Axis, Labels

__all__ = ["RULES", "broadcast"]


def elementwise(coupling: Coupling, call: Call) -> Labels:
    """One output that has the broadcast shape of all tensor arguments."""
    return broadcast(coupling, [labels for _, labels in call.tensors()], call.shape)


def broadcast(
    coupling: Coupling, inputs: Sequence[Labels], shape: tuple[int, ...], free: Collection[int] = ()
) -> Labels:
    """Tie the axes of all inputs that meet on a dimension of the broadcast `shape` (dimensions in `free` excepted)."""
    if len(inputs) == 1 and len(inputs[0].shape) == len(shape):
        return Labels(shape, inputs[0].axes)
    if not any(axis.is_joint for labels in inputs for axis in labels.axes):
        return _plain(coupling, inputs, shape, free)
    aligned = [_aligned(labels, len(shape)) for labels in inputs]
    aligned = [_separated(coupling, labels, aligned, shape, free) for labels in aligned]
    result: list[Axis] = []
    for labels in aligned:
        for axis in labels.axes:
            for other in aligned:
                _meet(coupling, axis, other, free)
            same = next((a for a in result if a.dims == axis.dims), None)
            if same is not None:
                coupling.tie(same.atoms, axis.atoms)
            else:
                result.append(axis)
    widest = [a for a in result if not any(set(a.dims) < set(b.dims) for b in result)]
    return Labels(shape, tuple(widest))


def _plain(coupling: Coupling, inputs: Sequence[Labels], shape: tuple[int, ...], free: Collection[int]) -> Labels:
    """The same where no axis is joint, as in most networks: dimension by dimension."""
    result: dict[int, Axis] = {}
    for labels in inputs:
        shift = len(shape) - len(labels.shape)
        for axis in labels.axes:
            dim = axis.dims[0] + shift
            if dim not in free and any(_is_fixed(other, dim - len(shape)) for other in inputs):
                coupling.freeze(axis.atoms, "meets a fixed dimension")
            if dim in result:
                coupling.tie(result[dim].atoms, axis.atoms)
            else:
                result[dim] = axis.moved((dim,))
    return Labels(shape, tuple(result.values()))


def _is_fixed(labels: Labels, dim: int) -> bool:
    """Whether a dimension, counted from the end, is there and has no labels."""
    return len(labels.shape) >= -dim and labels.shape[dim] != 1 and labels.axis(dim) is None


def _aligned(labels: Labels, ndim: int) -> Labels:
    shift = ndim - len(labels.shape)
    shape = (1,) * shift + labels.shape
    return Labels(shape, tuple(Axis(tuple(d + shift for d in a.dims), a.atoms) for a in labels.axes))


def _separated(
    coupling: Coupling, labels: Labels, everything: Sequence[Labels], shape: tuple[int, ...], free: Collection[int]
) -> Labels:
    """A joint axis that meets a tensor which covers only some of its dimensions must be separated."""
    for axis in labels.axes:
        if not axis.is_joint:
            continue
        for other in everything:
            covered = [d for d in axis.dims if other.shape[d] > 1 and d not in free]
            whole = other.axis(covered[0]) if covered else None
            if not covered or (whole is not None and set(whole.dims) >= set(axis.dims)):
                continue
            fixed = [d for d in covered if other.axis(d) is None]
            rest = [d for d in axis.dims if d not in fixed]
            deciding = coupling.deciding(axis)
            dims = [deciding] if deciding in rest else rest[:1]
            if not dims:
                coupling.freeze(axis.atoms, "meets a fixed tensor")
                return Labels(labels.shape, tuple(a for a in labels.axes if a is not axis))
            return _separated(coupling, coupling.separate(labels, axis, dims), everything, shape, free)
    return labels


def _meet(coupling: Coupling, axis: Axis, other: Labels, free: Collection[int]) -> None:
    """Tie or freeze the axis where the other tensor covers its dimensions with something else."""
    for dim in axis.dims:
        if dim in free or other.shape[dim] == 1:
            continue
        counterpart = other.axis(dim)
        if counterpart is None:
            if not axis.is_joint:
                coupling.freeze(axis.atoms, "meets a fixed dimension")
        elif counterpart.dims != axis.dims:
            if set(counterpart.dims) < set(axis.dims):
                index = tuple(slice(None) if d in counterpart.dims else None for d in axis.dims)
                coupling.tie(counterpart.atoms[index], axis.atoms)
            elif not set(axis.dims) < set(counterpart.dims):
                coupling.freeze(axis.atoms, "meets a differently split dimension")
                coupling.freeze(counterpart.atoms, "meets a differently split dimension")


def prelu(coupling: Coupling, call: Call) -> Labels:
    """`prelu(input, weight)`: one weight per channel (dimension 1), or one for all."""
    source, weight = call["self"], call["weight"]
    if len(weight.shape) == 1 and weight.shape[0] > 1:
        shape = [1] * len(source.shape)
        shape[1] = weight.shape[0]
        weight = Labels(tuple(shape), tuple(Axis((1,), axis.atoms) for axis in weight.axes))
    return broadcast(coupling, [source, weight], call.shape)


def converted(coupling: Coupling, call: Call) -> Labels:  # noqa: ARG001  a rule
    """Conversions to another type: a second tensor only lends its own."""
    return Labels(call.shape, call["self"].axes)


def gated(coupling: Coupling, call: Call) -> Labels:
    """`glu`: the first half along the dimension times the sigmoid of the second."""
    source: Labels = call["self"]
    dim = int(call.get("dim", -1)) % len(source.shape)
    source, atoms = coupling.along(source, dim)
    axes = [axis for axis in source.axes if dim not in axis.dims]
    if atoms is not None:
        half = len(atoms) // 2
        coupling.tie(atoms[:half], atoms[half:])
        axes.append(Axis((dim,), atoms[:half]))
    return Labels(call.shape, tuple(axes))


_NAMES = """
    add sub rsub mul div true_divide floor_divide pow remainder fmod maximum minimum where addcmul addcdiv lerp
    eq ne lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or bitwise_not masked_fill
    abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal sign sin cos tan asin acos atan atan2
    sinh cosh tanh erf erfc sigmoid floor ceil round trunc frac clamp clamp_min clamp_max clip isnan isinf nan_to_num
    relu relu6 leaky_relu elu selu celu gelu silu mish hardtanh hardswish hardsigmoid softplus softsign log_sigmoid
        threshold hardshrink softshrink tanhshrink rrelu dropout alpha_dropout feature_dropout feature_alpha_dropout
    logit xlogy hypot heaviside sgn signbit erfinv isfinite isclose logaddexp bitwise_xor logical_xor
    __and__ __or__ __xor__
    fill copy zero float half double bfloat16 zeros_like ones_like full_like empty_like rand_like randn_like bernoulli
"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_NAMES.split(), elementwise),
    "prelu": prelu,
    "glu": gated,
    **dict.fromkeys(("to", "_to_copy", "type_as"), converted),
}
