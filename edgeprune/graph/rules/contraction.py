"""Contractions: what is summed over is tied between the operands, what is free passes on.

Convolutions, linear layers, matrix products and attention. `_product` treats every one of them as an Einstein
summation over named dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.graph.coupling import Call, Coupling, Rule
from edgeprune.graph.labels import Atoms, Axis, Labels
from edgeprune.graph.operators import argument_names

__all__ = ["RULES"]


Operand = tuple[str, Labels, str]  # argument name, labels, one letter per dimension


def _product(coupling: Coupling, operands: Sequence[Operand], output: str, shape: tuple[int, ...]) -> Labels:
    """Labels of an Einstein summation."""
    ready = list(operands)
    for _ in range(2):  # what one operand gives up decides for the other
        for i, (name, labels, letters) in enumerate(ready):
            others = [operand for j, operand in enumerate(ready) if j != i]
            ready[i] = (name, _ready(coupling, labels, letters, others, output), letters)
    result: list[Axis] = []
    for i, (name, labels, letters) in enumerate(ready):
        for axis in labels.axes:
            places = "".join(letters[d] for d in axis.dims)
            for j, (_, other, names) in enumerate(ready):
                partner = _partner(other, names, places) if j != i else None
                if partner is not None:
                    coupling.tie(axis.atoms, partner)
            if all(p in output for p in places):
                dims = tuple(output.index(p) for p in places)
                if not any(set(dims) & set(a.dims) for a in result):
                    result.append(axis.moved(dims))
            else:
                for dim in axis.dims:
                    coupling.contracted(name, dim)
    return Labels(shape, tuple(result))


def _ready(coupling: Coupling, labels: Labels, letters: str, others: Sequence[Operand], output: str) -> Labels:
    """Separate joint axes of which only a part is contracted or shared; freeze what meets a fixed dimension."""
    for axis in labels.axes:
        fixed = [d for d in axis.dims if _meets_fixed(letters[d], others)]
        if axis.is_joint:
            summed = [d for d in axis.dims if letters[d] not in output]
            shared = [d for d in axis.dims if any(letters[d] in names for _, _, names in others)]
            partly = 0 < len(summed) < len(axis.dims)
            if partly or fixed or (shared and not _same_everywhere(axis, letters, others)):
                rest = [d for d in axis.dims if d not in fixed] or list(axis.dims)
                deciding = coupling.deciding(axis)
                labels = coupling.separate(labels, axis, [deciding if deciding in rest else rest[0]])
                return _ready(coupling, labels, letters, others, output)
        elif fixed:
            coupling.freeze(axis.atoms, "multiplies it with a fixed dimension")
            labels = Labels(labels.shape, tuple(a for a in labels.axes if a is not axis))
            return _ready(coupling, labels, letters, others, output)
    return labels


def _meets_fixed(letter: str, others: Sequence[Operand]) -> bool:
    return any(
        letter in names and labels.shape[names.index(letter)] > 1 and labels.axis(names.index(letter)) is None
        for _, labels, names in others
    )


def _same_everywhere(axis: Axis, letters: str, others: Sequence[Operand]) -> bool:
    """Whether every other operand that shares the axis's letters has them joined in the same way."""
    places = {letters[d] for d in axis.dims}
    for _, labels, names in others:
        for letter in places & set(names):
            met = labels.axis(names.index(letter))
            if met is None or {names[d] for d in met.dims} != places:
                return False
    return True


def _partner(other: Labels, letters: str, places: str) -> Atoms | None:
    """The other operand's atoms on the same letters, in the same order."""
    axis = other.axis(letters.index(places[0])) if places[0] in letters else None
    if axis is None:
        return None
    names = "".join(letters[d] for d in axis.dims)
    if set(names) != set(places):
        return None
    return axis.atoms.transpose([names.index(p) for p in places])


def linear(coupling: Coupling, call: Call) -> Labels:
    """`linear(input (…, i), weight (o, i), bias (o))`."""
    source: Labels = call["input"]
    batch = "abcdefgh"[: len(source.shape) - 1]
    result = _product(
        coupling, [("input", source, batch + "i"), ("weight", call["weight"], "oi")], batch + "o", call.shape
    )
    coupling.role(call.node.args[1], 0, "producer")
    coupling.role(call.node.args[1], 1, "consumer")
    return _with_bias(coupling, call, result, len(call.shape) - 1)


def matmul(coupling: Coupling, call: Call) -> Labels:
    """`matmul`, `bmm`, `mm`: (…, m, k) × (…, k, n), batch dimensions broadcast."""
    first_name, second_name = ("self", "other") if "other" in call.arguments else ("self", "mat2")
    first, second = call[first_name], call[second_name]
    left = _batch(len(first.shape) - 2) + "mk" if len(first.shape) > 1 else "k"
    right = _batch(len(second.shape) - 2) + "kn" if len(second.shape) > 1 else "k"
    output = max(left[:-2], right[:-2], key=len) + ("m" if "m" in left else "") + ("n" if "n" in right else "")
    return _product(coupling, [(first_name, first, left), (second_name, second, right)], output, call.shape)


def _batch(count: int) -> str:
    """Letters for leading dimensions, aligned at their end as broadcasting aligns them."""
    return "abcdefgh"[8 - max(count, 0) :] if count > 0 else ""


def addmm(coupling: Coupling, call: Call) -> Labels:
    """`addmm(bias, (m, k), (k, n))`."""
    result = _product(coupling, [("mat1", call["mat1"], "mk"), ("mat2", call["mat2"], "kn")], "mn", call.shape)
    coupling.role(call.node.args[2], 1, "producer")
    coupling.role(call.node.args[2], 0, "consumer")
    call.arguments["bias"] = call["self"]
    return _with_bias(coupling, call, result, 1)


def attention(coupling: Coupling, call: Call) -> Labels:
    """Scaled dot-product attention: query (…, t, d), key (…, s, d), value (…, s, e), mask (…, t, s)."""
    query, key, value = call["query"], call["key"], call["value"]
    batch = _batch(len(query.shape) - 2)
    if call.get("enable_gqa") and query.shape[-3] != key.shape[-3]:
        for labels in (query, key, value):
            for axis in labels.axes:
                coupling.freeze(axis.atoms, "shares keys between heads")
        return Labels(call.shape)
    scores_shape = (*query.shape[:-1], key.shape[-2])
    scores = _product(
        coupling, [("query", query, batch + "td"), ("key", key, batch + "sd")], batch + "ts", scores_shape
    )
    mask = call.get("attn_mask")
    if mask is not None:
        from edgeprune.graph.rules.elementwise import broadcast

        scores = broadcast(coupling, [scores, mask], scores_shape)
    scores = coupling.freeze_axes(scores, [-1, -2], "normalises over it")
    return _product(
        coupling, [("scores", scores, batch + "ts"), ("value", value, batch + "se")], batch + "te", call.shape
    )


def convolution(coupling: Coupling, call: Call) -> Labels:
    """`conv1d/2d/3d(input (n, c, …), weight (o, c/groups, …), bias (o), …, groups)`."""
    source, weight, groups = call["input"], call["weight"], int(call.get("groups", 1))
    source = coupling.freeze_axes(source, [0, *range(2, len(source.shape))], "slides over it")
    weight = coupling.freeze_axes(weight, range(2, len(weight.shape)), "slides over it")
    source, inputs = coupling.along(source, 1)
    weight, outputs = coupling.along(weight, 0)
    weight, taps = coupling.along(weight, 1)
    kernel = call.node.args[1]
    if groups == 1:
        operands = [
            ("input", Labels(source.shape, source.axes), "nc" + "xyz"[: len(source.shape) - 2]),
            ("weight", weight, "oc" + "uvw"[: len(weight.shape) - 2]),
        ]
        result = _product(coupling, operands, "no" + "pqr"[: len(call.shape) - 2], call.shape)
        coupling.role(kernel, 0, "producer")
        coupling.role(kernel, 1, "consumer")
        return _with_bias(coupling, call, result, 1)
    if inputs is None:
        for atoms in (outputs, taps):
            if atoms is not None:
                coupling.freeze(atoms, "convolves a fixed dimension in groups")
        return _with_bias(coupling, call, Labels(call.shape), 1)
    if source.shape[1] == groups:  # depthwise: each input channel has its own outputs
        if outputs is not None:
            coupling.tie(inputs[:, None], outputs.reshape(groups, -1))
    else:  # the same positions in every group
        coupling.tie(inputs.reshape(groups, -1)[:1], inputs.reshape(groups, -1))
        if taps is not None:
            coupling.tie(taps, inputs.reshape(groups, -1)[0])
        coupling.contracted("weight", 1)
        coupling.role(kernel, 0, "producer")
        coupling.role(kernel, 1, "consumer")
        if outputs is not None:
            coupling.tie(outputs.reshape(groups, -1)[:1], outputs.reshape(groups, -1))
    axes = () if outputs is None else (Axis((1,), outputs),)
    return _with_bias(coupling, call, Labels(call.shape, axes), 1)


def _with_bias(coupling: Coupling, call: Call, result: Labels, dim: int) -> Labels:
    """Tie the bias to dimension `dim` of the result."""
    bias: Labels | None = call.get("bias")
    if bias is None or not bias.axes:
        return result
    axis = result.axis(dim)
    if axis is None or axis.dims != (dim,):
        coupling.freeze(bias.axes[0].atoms, "adds it to a fixed dimension")
        return result
    coupling.tie(bias.axes[0].atoms, axis.atoms)
    names = argument_names(call.node)
    position = names.index("bias") if "bias" in names else 0
    if position < len(call.node.args):
        coupling.role(call.node.args[position], 0, "producer")
    return result


RULES: dict[str, Rule] = {
    "linear": linear,
    "matmul": matmul,
    "bmm": matmul,
    "mm": matmul,
    "addmm": addmm,
    "scaled_dot_product_attention": attention,
    "conv1d": convolution,
    "conv2d": convolution,
    "conv3d": convolution,
}
