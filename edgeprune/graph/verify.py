"""Verification: a pruned graph must equal the reference before anything is trained.

The reference is the *original* graph, run on the same input with the removed units cut where they are consumed:
zero in every contraction, left out of every normalisation or reduction that mixes them; what a dropped block adds is
zero. It is computed without the surgery: nothing is sliced, no literal is rewritten. Constant parameters (a
zero-initialised residual scale, fresh batch-norm statistics) would hide errors; for the check they take random
values, on both sides alike.

Where the batch is dynamic, both run at a larger one as well: there a size that was written out shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from edgeprune.errors import VerificationError
from edgeprune.graph.batch import batch_of, carriers, keep_at, repeated
from edgeprune.graph.coupling import Coupling
from edgeprune.graph.edit import Keep
from edgeprune.graph.labels import Left
from edgeprune.graph.operators import layer_of, operator_name
from edgeprune.graph.reference import Plain, Reference, State
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
    other_batch: int | None  # None where the model itself takes one batch size alone
    other_batch_error: float | None  # the relative error there


def verify(
    original: GraphModule,
    pruned: GraphModule,
    coupling: Coupling,
    keep: Keep,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    dropped: Mapping[Node, int] = MappingProxyType({}),
    coupled_at: Callable[[int], Coupling] | None = None,
    seed: int = 0,
) -> Verification:
    """Compare in double precision, in single where the graph insists on it. Raises VerificationError.

    `dropped`: additions of the original graph, with the argument that counts as zero there. `coupled_at` gives the
    coupling at another batch, where the batch is dynamic: a size that is right at one batch alone shows at another.
    """
    generator = torch.Generator().manual_seed(seed)
    probe = _probe(original, generator)
    pair = _Pair(original, pruned, coupling, keep, dropped, probe, coupled_at)
    inputs = pair.rows(example_inputs, max(pair.others, default=batch_of(original.graph)))
    random = tuple(_random_like(x, generator) for x in inputs)
    try:
        try:
            return pair.compare(random, torch.float64)
        except _NotANumberError:  # random numbers are no input for this model: stay near the example
            random = tuple(_near(x, generator) for x in inputs)
            return pair.compare(random, torch.float64)
    except RuntimeError as problem:
        _LOG.info("no comparison in double precision: %s", problem)
        try:
            return pair.compare(random, torch.float32)
        except (RuntimeError, _NotANumberError) as failed:
            raise VerificationError(
                f"the pruned graph cannot be compared with its reference: {failed}", hint=_HINT
            ) from failed
    except _NotANumberError as failed:
        raise VerificationError(
            "the model's output is not a number on inputs like the example, so that nothing can be verified",
            hint="give example inputs on which the model works",
        ) from failed


class _NotANumberError(Exception):
    """The reference computes NaN: the comparison would say nothing."""


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """What the reference computes at another batch."""

    rows: int
    inputs: tuple[torch.Tensor, ...]
    expected: list[Any]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The original graph, whose removed units are cut, and the pruned one."""

    original: GraphModule
    pruned: GraphModule
    coupling: Coupling
    keep: Keep
    dropped: Mapping[Node, int]
    probe: State
    coupled_at: Callable[[int], Coupling] | None

    @property
    def others(self) -> tuple[int, ...]:
        """Batches to look at beside that of the graph: larger, so that what is cut off shows.

        Some models take multiples alone.
        """
        rows = batch_of(self.original.graph)
        return () if self.coupled_at is None or rows is None else (rows + 1, 2 * rows)

    def rows(self, inputs: tuple[torch.Tensor, ...], rows: int | None) -> tuple[torch.Tensor, ...]:
        """The inputs at a batch: their rows in turn, or the first of them."""
        if rows is None:
            return inputs
        carried = zip(inputs, carriers(self.original.graph), strict=True)
        return tuple(repeated(x, rows) if carries else x for x, carries in carried)

    def compare(self, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype) -> Verification:
        """Raises VerificationError; RuntimeError where the reference cannot be computed."""
        rows = batch_of(self.original.graph)
        here = self.rows(inputs, rows)
        other = self._elsewhere(inputs, dtype)
        error = float("inf")
        found = self._found(here, dtype)
        if other is not None:
            # In most models a row does not know of the others, so that the reference is not needed once more.
            error = _largest_error(found, [_first(x, rows, other.rows) for x in other.expected])
        if error > TOLERANCES[dtype]:
            error = _largest_error(found, self._expected(here, dtype, self.coupling, self.keep))
        _check(error, dtype, rows)
        if other is None:
            return Verification(error, _name(dtype), TOLERANCES[dtype], None, None)
        other_error = _largest_error(self._found(other.inputs, dtype), other.expected)
        _check(other_error, dtype, other.rows)
        return Verification(error, _name(dtype), TOLERANCES[dtype], other.rows, other_error)

    def _elsewhere(self, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype) -> _Elsewhere | None:
        """The reference at another batch; None where the model takes none."""
        for rows in self.others:
            given = self.rows(inputs, rows)
            try:
                coupling = cast("Callable[[int], Coupling]", self.coupled_at)(rows)
                keep = keep_at(self.coupling, self.keep, coupling)
                return _Elsewhere(rows, given, self._expected(given, dtype, coupling, keep))
            except Exception as failed:
                try:
                    _run(Plain(self.original, self.probe, dtype), given, dtype)
                except Exception as own:
                    _LOG.info("the model does not work at a batch of %d: %s", rows, own)
                    continue
                if isinstance(failed, VerificationError):
                    raise
                raise VerificationError(f"no reference at a batch of {rows}: {failed}", hint=_HINT) from failed
        return None

    def _expected(
        self, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype, coupling: Coupling, keep: Keep
    ) -> list[Any]:
        return _run(Reference(self.original, coupling, keep, self.probe, dtype, dropped=self.dropped), inputs, dtype)

    def _found(self, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype) -> list[Any]:
        labels, left = self.coupling.parameters, Left(self.keep)
        sliced = {name: slice_tensor(tensor, labels[name], left) for name, tensor in self.probe.items()}
        plain = Plain(self.pruned, sliced, dtype)
        try:
            return _run(plain, inputs, dtype)
        except Exception as failed:
            shapes = " and ".join(f"{list(x.shape)}" for x in inputs)
            message = f"the pruned graph fails in {_place(plain.now)} on {shapes}: {_first_line(failed)}"
            raise VerificationError(message, hint=_HINT) from failed


def _run(graph: Plain, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype) -> list[Any]:
    with torch.no_grad():
        return pytree.tree_leaves(graph.run(*(x.to(dtype) if x.is_floating_point() else x for x in inputs)))


def _check(error: float, dtype: torch.dtype, rows: int | None) -> None:
    if not error <= TOLERANCES[dtype]:
        where = "" if rows is None else f"at a batch of {rows} "
        allowed = f"(allowed: {TOLERANCES[dtype]:.0e} of the largest output)"
        message = f"{where}the pruned graph differs from its reference by {error:.2e} {allowed}"
        raise VerificationError(message, hint=_HINT)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _place(node: Node | None) -> str:
    layer = layer_of(node) if node is not None else ""
    return f"{operator_name(node)!r}" + (f" of {layer!r}" if layer else "")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line]
    return lines[0] if lines else type(error).__name__


def _first(output: Any, rows: int | None, of: int) -> Any:
    carries = isinstance(output, torch.Tensor) and output.dim() > 0 and len(output) == of
    return output[:rows] if carries else output


def _largest_error(found: list[Any], expected: list[Any]) -> float:
    pairs = zip(found, expected, strict=True)
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
