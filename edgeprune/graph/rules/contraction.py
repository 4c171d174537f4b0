"""Contractions: what is summed over is tied between the operands, what is free passes on.

Linear layers, matrix products and attention; `product` treats every contraction as an Einstein summation over named
dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Atoms, Axis, Labels
from edgeprune.graph.rules.elementwise import broadcast

__all__ = ["RULES", "product", "with_bias"]


Operand = tuple[str, Labels, str]  # argument name, labels, one letter per dimension


def product(coupling: Coupling, operands: Sequence[Operand], output: str, shape: tuple[int, ...]) -> Labels:
    """Labels of an Einstein summation."""
    if not any(axis.is_joint for _, labels, _ in operands for axis in labels.axes):
        return _plain(coupling, operands, output, shape)
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


def _plain(coupling: Coupling, operands: Sequence[Operand], output: str, shape: tuple[int, ...]) -> Labels:
    """The same where no axis is joint, as in most networks: each letter stands for itself."""
    result: dict[int, Axis] = {}
    met: dict[str, Atoms] = {}
    for i, (name, labels, letters) in enumerate(operands):
        others = [operand for j, operand in enumerate(operands) if j != i]
        for axis in labels.axes:
            (dim,) = axis.dims
            letter = letters[dim]
            if _meets_fixed(letter, others):
                coupling.freeze(axis.atoms, "multiplies it with a fixed dimension")
                continue
            if letter in met:
                coupling.tie(met[letter], axis.atoms)
            else:
                met[letter] = axis.atoms
            if letter not in output:
                coupling.contracted(name, dim)
            elif (place := output.index(letter)) not in result:
                result[place] = axis.moved((place,))
    return Labels(shape, tuple(result.values()))


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
    result = product(
        coupling, [("input", source, batch + "i"), ("weight", call["weight"], "oi")], batch + "o", call.shape
    )
    coupling.role(call.node.args[1], 0, "producer")
    coupling.role(call.node.args[1], 1, "consumer")
    return with_bias(coupling, call, result, len(call.shape) - 1)


def matmul(coupling: Coupling, call: Call) -> Labels:
    """`matmul`, `bmm`, `mm`: (…, m, k) × (…, k, n), batch dimensions broadcast."""
    first_name, second_name = ("self", "other") if "other" in call.arguments else ("self", "mat2")
    first, second = call[first_name], call[second_name]
    left = _batch(len(first.shape) - 2) + "mk" if len(first.shape) > 1 else "k"
    right = _batch(len(second.shape) - 2) + "kn" if len(second.shape) > 1 else "k"
    output = max(left[:-2], right[:-2], key=len) + ("m" if "m" in left else "") + ("n" if "n" in right else "")
    for name, letters in ((first_name, left), (second_name, right)):
        _roles(coupling, call.node_of(name), letters, output)
    return product(coupling, [(first_name, first, left), (second_name, second, right)], output, call.shape)


def _roles(coupling: Coupling, node: object, letters: str, output: str) -> None:
    """What is left of a parameter in the output is produced by it, the rest consumed."""
    for dim, letter in enumerate(letters):
        coupling.role(node, dim, "producer" if letter in output else "consumer")


def _batch(count: int) -> str:
    """Letters for leading dimensions, aligned at their end as broadcasting aligns them."""
    return "abcdefgh"[8 - max(count, 0) :] if count > 0 else ""


def addmm(coupling: Coupling, call: Call) -> Labels:
    """`addmm(bias, (m, k), (k, n))`."""
    result = product(coupling, [("mat1", call["mat1"], "mk"), ("mat2", call["mat2"], "kn")], "mn", call.shape)
    _roles(coupling, call.node_of("mat2"), "kn", "mn")
    if len(call["self"].shape) == 1:
        coupling.role(call.node_of("self"), 0, "producer")
    return broadcast(coupling, [result, call["self"]], call.shape)


def baddbmm(coupling: Coupling, call: Call) -> Labels:
    """`baddbmm(added, (b, m, k), (b, k, n))`, `addbmm` (the batch summed over)."""
    batch = "b" if call.name.startswith("b") else ""
    operands = [("batch1", call["batch1"], "bmk"), ("batch2", call["batch2"], "bkn")]
    for name, _, letters in operands:
        _roles(coupling, call.node_of(name), letters, batch + "mn")
    result = product(coupling, operands, batch + "mn", call.shape)
    return broadcast(coupling, [result, call["self"]], call.shape)


def vectors(coupling: Coupling, call: Call) -> Labels:
    """`mv` (m, k) × (k), `dot`, `vdot` (k) × (k), `outer` (m) × (n).

    Of parameters alone they estimate a norm of a whole weight (spectral norm), whose vectors fit its full size only.
    """
    letters = {"mv": ("mk", "k", "m"), "outer": ("m", "n", "mn")}
    left, right, output = letters.get(call.name, ("k", "k", ""))
    (first, a), (second, b) = call.tensors()
    if call.name != "outer" and all(coupling.is_static(node) for node in call.node.args[:2]):
        for labels in (a, b):
            coupling.freeze_axes(labels, range(len(labels.shape)), "estimates a norm of the whole weight")
        return Labels(call.shape)
    for name, written in ((first, left), (second, right)):
        _roles(coupling, call.node_of(name), written, output)
    return product(coupling, [(first, a, left), (second, b, right)], output, call.shape)


def tensordot(coupling: Coupling, call: Call) -> Labels:
    """`tensordot(self, other, dims_self, dims_other)`: the dimensions of both that are summed over, pair by pair."""
    first, second = call["self"], call["other"]
    left, right = list("abcdefgh"[: len(first.shape)]), list("ABCDEFGH"[: len(second.shape)])
    for i, j in zip(call["dims_self"], call["dims_other"], strict=True):
        right[j % len(right)] = left[i % len(left)]
    output = "".join(c for c in (*left, *right) if (c in left) != (c in right))
    operands = [("self", first, "".join(left)), ("other", second, "".join(right))]
    for name, _, letters in operands:
        _roles(coupling, call.node_of(name), letters, output)
    return product(coupling, operands, output, call.shape)


def einsum(coupling: Coupling, call: Call) -> Labels:
    """An Einstein summation as it is written; a letter twice in one operand (a diagonal) is frozen."""
    equation, tensors = str(call["equation"]).replace(" ", ""), call["tensors"]
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if "->" not in equation:
        letters = inputs.replace(",", "").replace("...", "")
        output = ("..." if "..." in inputs else "") + "".join(sorted(c for c in letters if letters.count(c) == 1))
    spread = max(len(t.shape) - len(w.replace("...", "")) for t, w in zip(tensors, terms, strict=True))
    operands: list[Operand] = []
    for given, term in zip(tensors, terms, strict=True):
        missing = len(given.shape) - len(term.replace("...", "")) if "..." in term else 0
        written = term.replace("...", _ELLIPSIS[spread - missing : spread])
        diagonal = len(set(written)) < len(written)
        dims = range(len(given.shape)) if diagonal else ()
        labels = coupling.freeze_axes(given, dims, "takes a diagonal of it")
        operands.append(("tensors", labels, written))
    for node, (_, _, written) in zip(call.node_of("tensors"), operands, strict=True):
        _roles(coupling, node, written, output)
    return product(coupling, operands, output.replace("...", _ELLIPSIS[:spread]), call.shape)


_ELLIPSIS = "01234567"  # names of the dimensions that "..." stands for


def attention(coupling: Coupling, call: Call) -> Labels:
    """Scaled dot-product attention: query (…, t, d), key (…, s, d), value (…, s, e), mask (…, t, s)."""
    query, key, value = call["query"], call["key"], call["value"]
    batch = _batch(len(query.shape) - 2)
    if call.get("enable_gqa") and query.shape[-3] != key.shape[-3]:
        key, value = (_shared(labels, query.shape[-3]) for labels in (key, value))
    scores_shape = (*query.shape[:-1], key.shape[-2])
    scores = product(coupling, [("query", query, batch + "td"), ("key", key, batch + "sd")], batch + "ts", scores_shape)
    mask = call.get("attn_mask")
    if mask is not None:
        scores = broadcast(coupling, [scores, mask], scores_shape)
    scores = coupling.freeze_axes(scores, [-1, -2], "normalises over it")
    return product(
        coupling, [("scores", scores, batch + "ts"), ("value", value, batch + "se")], batch + "te", call.shape
    )


def _shared(labels: Labels, heads: int) -> Labels:
    """Keys or values that several query heads share: a shared head goes with all of its query heads.

    One that all query heads share stays, and any of those may go.
    """
    dim = len(labels.shape) - 3
    if labels.shape[dim] == 1:
        return labels
    times = heads // labels.shape[dim]
    axes = [
        Axis(axis.dims, np.repeat(axis.atoms, times, axis.dims.index(dim))) if dim in axis.dims else axis
        for axis in labels.axes
    ]
    return Labels((*labels.shape[:dim], heads, *labels.shape[dim + 1 :]), tuple(axes))


def with_bias(coupling: Coupling, call: Call, result: Labels, dim: int) -> Labels:
    """Tie the bias to dimension `dim` of the result."""
    bias: Labels | None = call.get("bias")
    if bias is None or not bias.axes:
        return result
    axis = result.axis(dim)
    if axis is None or axis.dims != (dim,):
        coupling.freeze(bias.axes[0].atoms, "adds it to a fixed dimension")
        return result
    coupling.tie(bias.axes[0].atoms, axis.atoms)
    coupling.role(call.node_of("bias"), 0, "producer")
    return result


RULES: dict[str, Rule] = {
    "linear": linear,
    "matmul": matmul,
    "bmm": matmul,
    "mm": matmul,
    "addmm": addmm,
    "baddbmm": baddbmm,
    "addbmm": baddbmm,
    **dict.fromkeys(("mv", "dot", "vdot", "outer"), vectors),
    "tensordot": tensordot,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
}
