"""Parity: the artifact, run by its runtime, must compute what the module computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import ParityError
from edgeprune.export.base import resized
from edgeprune.export.layout import as_file, as_network, fixed_batch
from edgeprune.export.runner import Array, Runner, open_runner
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["check", "relative_error"]


def check(
    artifact: Artifact,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    tolerance: float = 1e-3,
    seed: int = 0,
    runner: Runner | None = None,
) -> float:
    """The worst relative error of any output, on the example inputs and on random ones, at batch 1 and batch 3.

    Relative error: largest absolute difference by largest absolute value of the module's output. An artifact with a
    fixed batch is run at that batch, in its own runtime or by `runner`, which is closed. The module runs in eval mode
    and is left as it was. Raises ParityError, naming the output, above `tolerance`, and where the runtime cannot load
    or run the file.
    """
    import torch

    if len(artifact.inputs) != len(inputs):
        raise ParityError(f"{artifact.path.name} has {len(artifact.inputs)} inputs, the model {len(inputs)}")
    run = runner or open_runner(artifact)
    worst = 0.0
    training = module.training
    module.eval()
    try:
        for what, tensors in _cases(artifact, inputs, seed):
            with torch.no_grad():
                wanted = _leaves(module(*tensors))
            got = as_network(artifact, run(as_file(artifact, [_array(tensor) for tensor in tensors]), what))
            if len(got) != len(wanted):
                raise ParityError(f"{artifact.path.name} has {len(got)} outputs, the model {len(wanted)}")
            for spec, actual, reference in zip(artifact.outputs, got, wanted, strict=True):
                error = relative_error(actual, reference)
                if not error <= tolerance:
                    raise ParityError(
                        f"{artifact.path.name}: output {spec.name!r} differs from the model by {error:.3g} relative "
                        f"({what}; {run.runtime}), more than {tolerance:g}",
                        hint="the exported file is not to be used; please report the model with this message",
                    )
                worst = max(worst, error)
    finally:
        run.close()
        module.train(training)
    return worst


def relative_error(actual: Array, reference: Array) -> float:
    """max |actual - reference| / max |reference|; infinite where shapes differ, or NaN and infinities do."""
    if actual.shape != reference.shape:
        return float("inf")
    if reference.size == 0:
        return 0.0
    a, r = actual.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(r)
    if not np.array_equal(a[~finite], r[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    difference = float(np.abs(a - r, where=finite, out=np.zeros_like(r)).max()) if finite.any() else 0.0
    scale = float(np.abs(r, where=finite, out=np.zeros_like(r)).max())
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0 else float("inf")


def _cases(artifact: Artifact, inputs: tuple[Tensor, ...], seed: int) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """(description, inputs): example and random inputs at each batch size that the artifact takes."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    fixed = fixed_batch(artifact)
    for batch in (1, 3) if fixed is None else (fixed,):
        examples = resized(inputs, batch)
        yield f"example inputs, batch {batch}", examples
        yield f"random inputs, batch {batch}", tuple(_random_like(tensor, generator) for tensor in examples)


def _random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Normal with the example's mean and spread (1 where it is constant); integers from the example's own range."""
    import torch

    if tensor.is_floating_point() and tensor.numel():
        spread = float(tensor.double().std(correction=0)) or 1.0
        noise = torch.randn(tensor.shape, generator=generator)
        return (noise * spread + tensor.float().mean()).to(tensor.dtype)
    if tensor.is_floating_point() or tensor.is_complex() or not tensor.numel():
        return tensor
    low, high = int(tensor.min()), int(tensor.max())
    return torch.randint(low, high + 1, tensor.shape, generator=generator).to(tensor.dtype)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().contiguous().numpy()
    return array


def _leaves(outputs: Any) -> list[Array]:
    from torch.utils import _pytree as pytree

    return [_array(leaf) for leaf in pytree.tree_leaves(outputs) if hasattr(leaf, "detach")]
