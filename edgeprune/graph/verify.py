"""Verification: a pruned graph must equal the reference before anything is trained.

The reference is the *original* graph, run on the same input with the removed units cut where they are consumed:
zero in every contraction, left out of every normalisation or reduction that mixes them; what a dropped block adds is
zero. It is computed without the surgery: nothing is sliced, no literal is rewritten. Constant parameters (a
zero-initialised residual scale, fresh batch-norm statistics) would hide errors; for the check they take random
values, on both sides alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from edgeprune.errors import VerificationError
from edgeprune.graph.coupling import Coupling, Mixing
from edgeprune.graph.labels import Labels, kept_per_dim
from edgeprune.graph.operators import argument_names, operator_name, shape_of
from edgeprune.graph.surgery import slice_tensor

__all__ = ["TOLERANCES", "Verification", "verify"]

# Relative to the largest output. In double precision round-off stays below 1e-12, so that even a mistake whose
# effect is drowned by biases shows; single precision is for graphs that an operator ties to it.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
_HINT = "this is a bug in a pruning rule: the candidate was refused, nothing was changed; please report the model"
_CHANCE = ("rand", "randn", "rand_like", "randn_like", "bernoulli", "normal", "uniform", "exponential")
_LARGE = 2**16  # elements
_LOG = logging.getLogger(__name__)
Keep = NDArray[np.bool_]
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Verification:
    """How far the pruned graph is from its reference: largest difference over largest reference output."""

    relative_error: float
    dtype: str  # the arithmetic in which the two were compared
    tolerance: float


def verify(
    original: GraphModule,
    pruned: GraphModule,
    coupling: Coupling,
    keep: Keep,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    dropped: Mapping[Node, int] = MappingProxyType({}),
    seed: int = 0,
) -> Verification:
    """Compare in double precision, in single where the graph insists on it. Raises VerificationError.

    `dropped`: additions of the original graph, with the argument that counts as zero there.
    """
    reference = partial(_Reference, original, coupling, keep, dropped=dropped)
    generator = torch.Generator().manual_seed(seed)
    shapes = [shape_of(node.meta["val"]) for node in original.graph.nodes if node.op == "placeholder"]
    example_inputs = tuple(_of_shape(x, shape) for x, shape in zip(example_inputs, shapes, strict=True))
    inputs = tuple(_random_like(x, generator) for x in example_inputs)
    probe = _probe(original, generator)
    dtype = torch.float64
    try:
        try:
            error = _difference(reference, pruned, coupling, keep, inputs=inputs, probe=probe, dtype=dtype)
        except _NotANumberError:  # random numbers are no input for this model: stay near the example
            inputs = tuple(_near(x, generator) for x in example_inputs)
            error = _difference(reference, pruned, coupling, keep, inputs=inputs, probe=probe, dtype=dtype)
    except RuntimeError as problem:
        _LOG.info("no comparison in double precision: %s", problem)
        dtype = torch.float32
        try:
            error = _difference(reference, pruned, coupling, keep, inputs=inputs, probe=probe, dtype=dtype)
        except (RuntimeError, _NotANumberError) as failed:
            raise VerificationError(
                f"the pruned graph cannot be compared with its reference: {failed}", hint=_HINT
            ) from failed
    except _NotANumberError as failed:
        raise VerificationError(
            "the model's output is not a number on inputs like the example, so that nothing can be verified",
            hint="give example inputs on which the model works",
        ) from failed
    tolerance = TOLERANCES[dtype]
    if error <= tolerance:
        return Verification(error, str(dtype).removeprefix("torch."), tolerance)
    raise VerificationError(
        f"the pruned graph differs from its reference by {error:.2e} (allowed: {tolerance:.0e} of the largest output)",
        hint=_HINT,
    )


class _NotANumberError(Exception):
    """The reference computes NaN: the comparison would say nothing."""


def _difference(
    reference: Callable[[State, torch.dtype], _Reference],
    pruned: GraphModule,
    coupling: Coupling,
    keep: Keep,
    *,
    inputs: tuple[torch.Tensor, ...],
    probe: State,
    dtype: torch.dtype,
) -> float:
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    sliced = {name: slice_tensor(tensor, coupling.parameters[name], keep) for name, tensor in probe.items()}
    with torch.no_grad():
        expected = reference(probe, dtype).run(*inputs)
        found = _Plain(pruned, sliced, dtype).run(*inputs)
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    return max((_relative_error(a, b) for a, b in pairs if isinstance(a, torch.Tensor)), default=0.0)


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of one output: largest difference over largest value; infinities (masked logits) must be in the same places."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.double(), expected.double()
    if expected.isnan().any():
        raise _NotANumberError("its output is not a number")
    finite = expected.isfinite()
    if not torch.equal(found[~finite], expected[~finite]) or not found[finite].isfinite().all():
        return float("inf")
    if not finite.any():
        return 0.0
    difference, scale = float((found - expected)[finite].abs().max()), float(expected[finite].abs().max())
    return difference / scale if scale else difference


def _of_shape(example: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The example at the batch that the graph was captured with: one sample is captured as two."""
    return torch.cat([example] * (shape[0] // len(example))) if tuple(example.shape) != shape else example


def _random_like(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not example.is_floating_point():
        return example  # indices and masks must stay meaningful
    return torch.randn(example.shape, generator=generator).to(example.dtype)


def _near(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each value up to a tenth larger: what is positive stays so."""
    return example * (1 + 0.1 * _uniform(example, generator)) if example.is_floating_point() else example


def _uniform(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(like.shape, generator=generator).to(like.dtype)


def _probe(module: GraphModule, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random values for the parameters and statistics that are constant, positive where the constant is."""
    values: dict[str, torch.Tensor] = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        # Single values are mostly settings (an epsilon); a parameter of zero is a gate that is still closed.
        gate = isinstance(tensor, torch.nn.Parameter) and bool((tensor == 0).all())
        if gate or (tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())):
            noise = _uniform(tensor, generator)
            values[name] = tensor.detach() + (0.5 * noise if bool(tensor.flatten()[0] > 0) else noise - 0.5)
    return values


class _Plain(Interpreter):
    """Runs a graph with some parameters replaced, in a given precision, in evaluation mode."""

    def __init__(self, module: GraphModule, state: State, dtype: torch.dtype) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._state, self._dtype = state, dtype

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[Any, Any]:
        def precise(argument: Any) -> Any:
            if isinstance(argument, torch.dtype):
                return self._dtype if argument.is_floating_point else argument
            return self._precise(argument)

        return cast("tuple[Any, Any]", pytree.tree_map(precise, super().fetch_args_kwargs_from_env(n)))

    def run_node(self, n: Node) -> Any:
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


class _Reference(_Plain):
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
