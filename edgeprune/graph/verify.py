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

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from edgeprune.errors import VerificationError
from edgeprune.graph.coupling import Coupling
from edgeprune.graph.operators import shape_of
from edgeprune.graph.reference import Plain, Reference, State
from edgeprune.graph.rewriting import Keep
from edgeprune.graph.surgery import slice_tensor

__all__ = ["TOLERANCES", "Verification", "verify"]

# Relative to the largest output. In double precision round-off stays below 1e-12, so that even a mistake whose
# effect is drowned by biases shows; single precision is for graphs that an operator ties to it.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
_HINT = "this is a bug in a pruning rule: the candidate was refused, nothing was changed; please report the model"
_LOG = logging.getLogger(__name__)


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
    reference = partial(Reference, original, coupling, keep, dropped=dropped)
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
    reference: Callable[[State, torch.dtype], Reference],
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
        found = Plain(pruned, sliced, dtype).run(*inputs)
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
