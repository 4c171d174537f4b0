"""Between a network's tensors and a file's: types that the format has, and where the channels are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.export.runner import Array
from edgeprune.records.artifact import Artifact

__all__ = ["CHANNELS_LAST", "as_file", "as_network", "fixed_batch"]

# In the provenance, where a file has some: {"inputs": [...], "outputs": [...]}, the names of the tensors that are
# (N, ..., C) where the network has (N, C, ...).
CHANNELS_LAST = "channels_last"


def as_file(artifact: Artifact, inputs: Sequence[Array]) -> dict[str, Array]:
    """The network's inputs as the file takes them, by name."""
    turned = _channels_last(artifact, "inputs")
    found = {}
    for spec, array in zip(artifact.inputs, inputs, strict=True):
        own = np.ascontiguousarray(np.moveaxis(array, 1, -1)) if spec.name in turned else array
        narrower = own.dtype.kind in "iu" and np.dtype(spec.dtype).kind in "iu"  # a format without 64-bit integers
        found[spec.name] = own.astype(spec.dtype, copy=False) if narrower else own
    return found


def as_network(artifact: Artifact, outputs: Sequence[Array]) -> list[Array]:
    """The file's outputs, in its order, as the network has them."""
    turned = _channels_last(artifact, "outputs")
    names = [spec.name for spec in artifact.outputs] + [""] * len(outputs)  # one too many is told by who compares
    return [np.moveaxis(array, -1, 1) if name in turned else array for name, array in zip(names, outputs, strict=False)]


def fixed_batch(artifact: Artifact) -> int | None:
    """The batch that the file computes at, None where it takes any."""
    sizes = [size for spec in artifact.inputs for size in spec.shape[:1]]
    return (
        next((size for size in sizes if isinstance(size, int)), 1) if all(isinstance(n, int) for n in sizes) else None
    )


def _channels_last(artifact: Artifact, part: str) -> Sequence[str]:
    found: Sequence[str] = (artifact.provenance.get(CHANNELS_LAST) or {}).get(part, ())
    return found
