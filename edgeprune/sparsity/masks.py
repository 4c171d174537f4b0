"""Masks in the graph: a weight is multiplied with its mask where it is used, so that no training revives a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from edgeprune.errors import UsageError
from edgeprune.graph.captured import Prunable, Pruned
from edgeprune.graph.constants import attribute
from edgeprune.graph.operators import operator_name
from edgeprune.records.candidate import Candidate
from edgeprune.sparsity.criteria import Criterion, default_scope, score
from edgeprune.sparsity.patterns import NOfM, Pattern, Scope, masks, parse
from edgeprune.sparsity.weights import find_weights
from edgeprune.training_data import ImportanceContext

__all__ = ["check_pattern", "has_masks", "make_permanent", "sparsify", "zero_shares"]

_SUFFIX = "_mask"


def sparsify(
    model: Prunable,
    pattern: str = "unstructured",
    *,
    ratio: float | None = None,
    criterion: Criterion = "magnitude",
    scope: Scope | None = None,
    ignored: str | Sequence[str] = (),
    context: ImportanceContext | None = None,
) -> Pruned:
    """A copy of the model in which single weights are zero, and stay zero while it is trained.

    `pattern`: "unstructured", "2:4" (any N:M, along the inputs of convolutions and linear layers at each kernel
    position), or "block 1x4" (outputs × inputs). `ratio`: the share of zeros in the weights that take part, for all
    patterns but N:M. `criterion`: "magnitude", "lamp" or "wanda"; `scope`: weights compete within their "layer", with
    all others ("global"), or within the "row" of an output; by default as suits the criterion. `ignored`: patterns of
    parameter names. `context` gives the data that "wanda" needs. Raises UsageError, TaskError.
    """
    wanted = check_pattern(pattern, ratio, scope)
    patterns = (ignored,) if isinstance(ignored, str) else tuple(ignored)
    sparse = make_permanent(model)  # what is zero already has the lowest score
    weights = [w for w in find_weights(sparse.module) if not any(fnmatchcase(w.name, p) for p in patterns)]
    if not weights:
        raise UsageError("no weight of the model takes part", hint="`ignored` leaves none, or it has no such layers")
    scores = score(sparse.module, weights, criterion, context or ImportanceContext())
    kept = masks(scores, wanted, ratio or 0.0, scope or default_scope(criterion))
    before = model.candidate if isinstance(model, Pruned) else Candidate()
    named = {**before.sparsity, **{weight.name: f"{pattern} {criterion}" for weight in weights}}
    sparse.candidate = replace(before, sparsity=named)
    _insert(sparse.module, {weight.name: weight.tensor(kept[weight.name]) for weight in weights})
    sparse.graph_changed()
    return sparse


def make_permanent(model: Prunable) -> Pruned:
    """A copy with plain zeros in plain parameters, and no masks."""
    plain = model.prune(Candidate(), verify=False)
    plain.candidate = model.candidate if isinstance(model, Pruned) else Candidate()
    module = plain.module
    for weight, mask, product in _masked(module):
        parameter = attribute(module, str(weight.target))
        with torch.no_grad():
            parameter.mul_(attribute(module, str(mask.target))).add_(0.0)  # -0 becomes 0: one zero, all bits 0
        product.replace_all_uses_with(weight)
        module.graph.erase_node(product)
        if not mask.users:
            module.graph.erase_node(mask)
    for name in [name for name, _ in module.named_buffers() if name.endswith(_SUFFIX)]:
        if not any(node.op == "get_attr" and node.target == name for node in module.graph.nodes):
            parent, _, last = name.rpartition(".")
            delattr(module.get_submodule(parent), last)
    module.recompile()
    plain.graph_changed()
    return plain


def has_masks(model: Prunable) -> bool:
    """Whether weights of the model are masked."""
    return bool(_masked(model.module))


def zero_shares(model: Prunable) -> Mapping[str, float]:
    """The share of zeros per weight of a convolution or linear layer, masked or plain."""
    shares = {}
    masked = {str(weight.target): str(mask.target) for weight, mask, _ in _masked(model.module)}
    names = [*masked, *(w.name for w in find_weights(model.module) if w.name not in masked)]
    for name in names:
        value = attribute(model.module, name).detach()
        if name in masked:
            value = value * attribute(model.module, masked[name])
        shares[name] = float((value == 0).double().mean())
    return shares


def check_pattern(text: str, ratio: float | None, scope: str | None) -> Pattern:
    """The pattern that the text names; raises UsageError where ratio or scope do not fit it."""
    pattern = parse(text)
    if isinstance(pattern, NOfM):
        if ratio is not None:
            raise UsageError(f"{pattern.n}:{pattern.m} says itself how many weights stay", hint="leave the ratio out")
    elif ratio is None or not 0 <= ratio < 1:
        raise UsageError(
            f"the pattern {text!r} needs a ratio, the share of zeros from 0 to below 1"
            if ratio is None
            else f"the ratio {ratio} is not between 0 and 1",
            hint="--ratio 0.8 leaves every fifth weight",
        )
    if scope not in (None, "layer", "global", "row"):
        raise UsageError(f"weights cannot be compared by {scope!r}", hint="layer, global, row")
    return pattern


def _insert(module: GraphModule, kept: Mapping[str, NDArray[np.bool_]]) -> None:
    by_tensor = {id(attribute(module, name)): name for name in kept}
    placed: dict[str, str] = {}
    for node in list(module.graph.nodes):
        if node.op != "get_attr":
            continue
        value = attribute(module, str(node.target))
        name = by_tensor.get(id(value))
        if name is None:
            continue
        if name not in placed:
            placed[name] = _add_mask(module, name, value, kept[name])
        with module.graph.inserting_after(node):
            mask = module.graph.create_node("get_attr", placed[name])
        with module.graph.inserting_after(mask):
            product = module.graph.call_function(torch.ops.aten.mul.Tensor, (node, mask))
        mask.meta, product.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(product, delete_user_cb=lambda user, own=product: user is not own)
    module.graph.lint()
    module.recompile()


def _add_mask(module: GraphModule, name: str, weight: torch.nn.Parameter, kept: NDArray[np.bool_]) -> str:
    mask = torch.from_numpy(kept).to(weight.device, weight.dtype)
    with torch.no_grad():
        weight.mul_(mask)
    parent, _, last = name.rpartition(".")
    owner = module.get_submodule(parent)
    owner.register_buffer(last + _SUFFIX, mask)
    return name + _SUFFIX


def _masked(module: GraphModule) -> list[tuple[Node, Node, Node]]:
    """The nodes of masked weights, their masks, and the products of the two."""
    found = []
    for node in module.graph.nodes:
        if node.op != "call_function" or operator_name(node) != "mul" or len(node.args) != 2:
            continue
        weight, mask = node.args
        if isinstance(weight, Node) and isinstance(mask, Node) and mask.target == f"{weight.target}{_SUFFIX}":
            found.append((weight, mask, node))
    return found
