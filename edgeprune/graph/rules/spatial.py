"""Reductions, pooling and resizing pass on what they leave; embeddings pass on their width."""

from __future__ import annotations

from edgeprune.graph.call import Call
from edgeprune.graph.coupling import Coupling, Rule
from edgeprune.graph.labels import Axis, Labels
from edgeprune.graph.rules.elementwise import broadcast, elementwise

__all__ = ["RULES"]


def reduction(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """Mean, sum, maximum … over dimensions; over a prunable one it is computed over the kept units only."""
    name, source = call.tensors()[0]
    given = call.get("dim")
    ndim = len(source.shape)
    listed = range(ndim) if given is None or given == [] else given if isinstance(given, list | tuple) else [given]
    dims = {int(d) % ndim for d in listed}
    for axis in source.axes:
        rest = [d for d in axis.dims if d not in dims]
        if rest and len(rest) < len(axis.dims):
            source = coupling.separate(source, axis, rest)
    coupling.mixed(name, source, sorted(d for axis in source.axes for d in axis.dims if d in dims))
    keepdim = bool(call.get("keepdim", False))
    left = [d for d in range(ndim) if d not in dims]
    axes = [
        Axis(tuple(d if keepdim else left.index(d) for d in axis.dims), axis.atoms)
        for axis in source.axes
        if not set(axis.dims) & dims
    ]
    outputs = [Labels(shape, tuple(axes)) for shape in call.shapes]
    return outputs if isinstance(call.node.meta["val"], list | tuple) else outputs[0]


def index_of_extreme(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """`argmax` and the like return positions: over a prunable dimension they would change their meaning."""
    if isinstance(call.get("other"), Labels):  # the larger of two tensors
        return elementwise(coupling, call)
    name, source = call.tensors()[0]
    given = call.get("dim")
    dims = range(len(source.shape)) if given is None else [int(given)]
    if (
        given is not None
        and call.name in ("max", "min")
        and not any(u.args[1] == 1 and u.users for u in call.node.users)
    ):
        dims = []  # only the values are used
    call.arguments[name] = coupling.freeze_axes(source, dims, "returns positions in it")
    return reduction(coupling, call)


def pooling(coupling: Coupling, call: Call) -> Labels | list[Labels]:
    """Pooling and resizing work on the spatial dimensions of (n, c, …) alone."""
    _, source = call.tensors()[0]
    spatial = int("".join(c for c in call.name if c.isdigit())[:1] or 2)
    if call.name == "upsample_nearest" or call.name.startswith("upsample_"):
        spatial = len(source.shape) - 2
    source = coupling.freeze_axes(source, range(len(source.shape) - spatial, len(source.shape)), "slides over it")
    outputs = [Labels(shape, source.axes) for shape in call.shapes]
    return outputs if isinstance(call.node.meta["val"], list | tuple) else outputs[0]


def sampled(coupling: Coupling, call: Call) -> Labels:
    """`grid_sampler(input (n, c, …), grid)`: channels pass on."""
    source, grid = call["input"], call["grid"]
    coupling.freeze_axes(grid, range(len(grid.shape)), "samples at it")
    source = coupling.freeze_axes(source, [0, *range(2, len(source.shape))], "samples from it")
    return Labels(call.shape, source.axes)


def gathered(coupling: Coupling, call: Call) -> Labels:
    """`gather(self, dim, index)`: along all other dimensions, index by index."""
    dim = int(call["dim"]) % max(len(call.shape), 1)
    shape = tuple(1 if d == dim else n for d, n in enumerate(call.shape))
    operands = []
    for name in ("self", "index"):
        labels: Labels = call[name]
        fixed = [d for d, n in enumerate(labels.shape) if d == dim or n != call.shape[d]]
        labels = coupling.freeze_axes(labels, fixed, "looks entries up in it")
        operands.append(Labels(shape, labels.axes))
    return Labels(call.shape, broadcast(coupling, operands, shape).axes)


def embedding(coupling: Coupling, call: Call) -> Labels:
    """`embedding(weight (entries, width), indices)`: the width is prunable, the entries are not."""
    weight: Labels = coupling.freeze_axes(call["weight"], [0], "looks entries up in it")
    coupling.role(call.node.args[0], 1, "producer")
    last = len(call.shape) - 1
    return Labels(call.shape, tuple(Axis((last,), axis.atoms) for axis in weight.axes))


_REDUCTIONS = "mean sum amax amin var std var_mean std_mean prod linalg_vector_norm norm logsumexp any all"
_POOLS = """
    avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d upsample_linear1d
    upsample_trilinear3d _upsample_nearest_exact2d _upsample_bilinear2d_aa
    reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_REDUCTIONS.split(), reduction),
    **dict.fromkeys(_POOLS.split(), pooling),
    "max": index_of_extreme,
    "min": index_of_extreme,
    "argmax": index_of_extreme,
    "argmin": index_of_extreme,
    "embedding": embedding,
    "grid_sampler": sampled,
    "gather": gathered,
}
