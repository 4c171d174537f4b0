"""The reference of a verification: the original graph, run so that removed units have no effect.

Removed units are zero in every contraction and left out of every normalisation or reduction that mixes them; what a
dropped block adds is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from edgeprune.graph.coupling import Coupling, Mixing
from edgeprune.graph.edit import Keep
from edgeprune.graph.labels import Labels, kept_per_dim
from edgeprune.graph.operators import argument_names, operator_name

__all__ = ["Plain", "Reference", "State"]

_CHANCE = ("rand", "randn", "rand_like", "randn_like", "bernoulli", "normal", "uniform", "exponential")
_LARGE = 2**16  # elements
State = Mapping[str, torch.Tensor]


class Plain(Interpreter):
    """Runs a graph with some parameters replaced, in a given precision, in evaluation mode."""

    def __init__(self, module: GraphModule, state: State, dtype: torch.dtype) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._state, self._dtype = state, dtype
        self.now: Node | None = None  # what runs, or failed

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[Any, Any]:
        def precise(argument: Any) -> Any:
            if isinstance(argument, torch.dtype):
                return self._dtype if argument.is_floating_point else argument
            return self._precise(argument)

        return cast("tuple[Any, Any]", pytree.tree_map(precise, super().fetch_args_kwargs_from_env(n)))

    def run_node(self, n: Node) -> Any:
        self.now = n
        name = operator_name(n).rstrip("_") if n.op == "call_function" else ""
        if "dropout" in name:
            return self.fetch_args_kwargs_from_env(n)[0][0]
        result = super().run_node(n)
        return torch.full_like(result, 0.5) if name in _CHANCE else result  # on both sides alike

    def fetch_attr(self, target: str) -> Any:
        if target == "training":
            return False
        value = self._state[target] if target in self._state else super().fetch_attr(target)
        large = isinstance(value, torch.Tensor) and value.numel() > _LARGE
        return value if large else self._precise(value)  # large ones wait until they are used

    def _precise(self, value: Any) -> Any:
        return value.to(self._dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


class Reference(Plain):
    """The original graph with the removed units cut at their consumers."""

    def __init__(
        self,
        module: GraphModule,
        coupling: Coupling,
        keep: Keep,
        state: State,
        dtype: torch.dtype,
        *,
        dropped: Mapping[Node, int],
    ) -> None:
        super().__init__(module, state, dtype)
        self._coupling, self._keep, self._dropped = coupling, keep, dropped
        self._contracted: dict[Node, set[str]] = {}
        for contraction in coupling.contractions:
            self._contracted.setdefault(contraction.node, set()).add(contraction.argument)
        self._mixed = {mixing.node: mixing for mixing in coupling.mixings}

    def run_node(self, n: Node) -> Any:
        if n in self._dropped:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            terms = [torch.zeros_like(term) if i == self._dropped[n] else term for i, term in enumerate(args)]
            return cast("Any", n.target)(*terms, **kwargs)
        if n not in self._contracted and n not in self._mixed:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        call = self._coupling.calls[n]
        names = argument_names(n)
        bound = {**dict(zip(names, args, strict=False)), **kwargs}
        for name in self._contracted.get(n, ()):
            if isinstance(bound.get(name), list | tuple):
                bound[name] = [
                    _masked(x, labels, self._keep) for x, labels in zip(bound[name], call[name], strict=True)
                ]
            elif name in bound:
                bound[name] = _masked(bound[name], call[name], self._keep)
        mixing = self._mixed.get(n)
        if mixing is None:
            return cast("Any", n.target)(**bound)
        return _over_kept(mixing, bound, self._keep)


def _masked(tensor: torch.Tensor, labels: Labels, keep: Keep) -> torch.Tensor:
    for axis in labels.axes:
        mask = torch.from_numpy(keep[axis.atoms])
        if not mask.all():
            view = [n if d in axis.dims else 1 for d, n in enumerate(tensor.shape)]
            tensor = tensor * mask.reshape(view).to(tensor.dtype)
    return tensor


def _over_kept(mixing: Mixing, bound: dict[str, Any], keep: Keep) -> Any:
    """Run the operator on the kept indices of `dims` only, and put the result back in its place."""
    labels, dims = mixing.labels, mixing.dims
    kept: dict[int, torch.Tensor] = {}
    for dim in dims:
        axis = labels.axis(dim)
        if axis is not None:
            kept[dim] = torch.from_numpy(np.flatnonzero(kept_per_dim(axis, keep)[axis.dims.index(dim)]))
    if "num_groups" in bound:
        return _group_norm(bound, kept[1])
    tensor = bound[mixing.argument]
    for dim, index in kept.items():
        tensor = tensor.index_select(dim, index)
    arguments = {**bound, mixing.argument: tensor}
    if "normalized_shape" in arguments:
        ((_, index),) = kept.items()
        for name in ("weight", "bias"):
            if isinstance(arguments.get(name), torch.Tensor):
                arguments[name] = arguments[name].index_select(0, index)
        arguments["normalized_shape"] = [len(index)]
    result = cast("Callable[..., Any]", mixing.node.target)(**arguments)
    if not isinstance(result, torch.Tensor):  # several outputs; only the first one has the argument's shape
        return (_spread(result[0], bound[mixing.argument], kept), *result[1:]) if _keeps_shape(mixing) else result
    return _spread(result, bound[mixing.argument], kept) if _keeps_shape(mixing) else result


def _keeps_shape(mixing: Mixing) -> bool:
    """Normalisations do, reductions do not."""
    return any(name in argument_names(mixing.node) for name in ("normalized_shape", "running_mean", "g"))


def _spread(result: torch.Tensor, like: torch.Tensor, kept: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """What was computed over the kept indices, in its place among zeros."""
    for dim, index in kept.items():
        shape = [like.shape[dim] if d == dim else n for d, n in enumerate(result.shape)]
        result = torch.zeros(shape, dtype=result.dtype).index_copy(dim, index, result)
    return result


def _group_norm(bound: dict[str, Any], kept: torch.Tensor) -> torch.Tensor:
    """Each of the original groups on its own, over what is kept of it."""
    source, groups = cast("torch.Tensor", bound["input"]), int(bound["num_groups"])
    weight, bias = bound.get("weight"), bound.get("bias")
    full = torch.zeros_like(source)
    size = source.shape[1] // groups
    for group in range(groups):
        index = kept[(kept >= group * size) & (kept < (group + 1) * size)]
        if len(index):
            scale, shift = (None if p is None else p.index_select(0, index) for p in (weight, bias))
            part = source.index_select(1, index)
            normal = torch.nn.functional.group_norm(part, 1, scale, shift, float(bound.get("eps", 1e-5)))
            full = full.index_copy(1, index, normal)
    return full
