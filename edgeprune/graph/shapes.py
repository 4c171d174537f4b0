"""The operators of a captured graph with their sizes as functions of the kept units: what their cost depends on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch.fx import Node

from edgeprune.graph.batch import batch_of
from edgeprune.graph.kinds import (
    CONTRACTIONS,
    Kind,
    activation_of,
    computes,
    dims_of,
    kind_of,
    operands_of,
    settings_of,
)
from edgeprune.graph.labels import Labels
from edgeprune.graph.macs import macs_with
from edgeprune.graph.operators import at_batch, is_operator, layer_of
from edgeprune.graph.sizes import Shape, Size, Sizes, product

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured

__all__ = [
    "Concrete",
    "OperatorShape",
    "Tensor",
    "block_gates",
    "inner_groups",
    "operator_shapes",
    "operators_at",
    "sizes_at_one",
    "trained",
]


@dataclass(frozen=True, slots=True)
class Concrete:
    """One operator at one choice of widths: all that a micro-benchmark needs. Equal ones cost the same.

    `parameters` are the shapes of the tensors that are part of the model, without names, in the operator's order;
    `settings` are kernel, stride, padding, dilation, output_padding (per spatial dimension), groups, transposed, ...
    """

    kind: Kind
    operator: str
    inputs: tuple[tuple[int, ...], ...]
    parameters: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    settings: tuple[tuple[str, Any], ...]
    activation: str


@dataclass(frozen=True, slots=True)
class OperatorShape:
    """One operator that computes, or copies, at batch 1 (at the batch of the capture where that is fixed).

    `inputs` are the shapes of its activations, `parameters` those of what the model has, by dotted name; both in the
    operator's order. `dims` names the sizes that matter: `inputs` and `outputs` (channels) of convolutions and
    `linear`, which also has `rows`; `batch`, `rows`, `inner`, `columns` of matrix products; `batch`, `heads`,
    `queries`, `keys`, `head`, `value` of attention. `folded`: the runtime folds it away (a batch-norm after its
    convolution, what is computed from parameters alone). `fused`: the operator that has this one as its
    `activation`. The operator vanishes where any of `blocks` is dropped.
    """

    node: str
    operator: str  # "conv2d"
    kind: Kind
    layer: str
    inputs: tuple[Shape, ...]
    parameters: tuple[tuple[str, Shape], ...]
    outputs: tuple[Shape, ...]
    dims: Mapping[str, Size]
    settings: tuple[tuple[str, Any], ...]
    macs: Size
    activation: str = ""
    folded: bool = False
    fused: str = ""
    blocks: tuple[str, ...] = ()
    units: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def elements(self) -> Size:
        """Elements that it writes."""
        return reduce(add, map(product, self.outputs), self._zero)

    @property
    def read(self) -> Size:
        """Elements of activations that it reads."""
        return reduce(add, map(product, self.inputs), self._zero)

    @property
    def params(self) -> Size:
        """Elements of parameters and buffers that it reads; tied ones are read by several operators."""
        return reduce(add, (product(shape) for _, shape in self.parameters), self._zero)

    @property
    def _zero(self) -> Size:
        return Size(units=self.units)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return (*self.inputs, *(shape for _, shape in self.parameters), *self.outputs)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that its cost depends on, sorted."""
        return tuple(sorted({group for shape in self.shapes for size in shape for group in size.groups}))

    @property
    def exact(self) -> bool:
        """Whether the sizes depend on how many units are kept alone, and not on which."""
        return all(size.exact for shape in self.shapes for size in shape)

    def at(self, kept: Mapping[str, int] = MappingProxyType({})) -> Concrete:
        """Its sizes at so many kept units per group; dense where not named."""

        def shapes(of: Iterable[Shape]) -> tuple[tuple[int, ...], ...]:
            return tuple(tuple(size.at(kept) for size in shape) for shape in of)

        settings = tuple((k, v.at(kept) if isinstance(v, Size) else v) for k, v in self.settings)
        parameters = shapes(shape for _, shape in self.parameters)
        inputs, outputs = shapes(self.inputs), shapes(self.outputs)
        return Concrete(self.kind, self.operator, inputs, parameters, outputs, settings, self.activation)

    def parts(self) -> tuple[OperatorShape, ...]:
        """Smaller operators whose sum stands for this one, where it depends on more than two groups.

        Of dense contractions one for each piece of the input channels with each piece of the output channels: exactly
        additive in multiply-accumulates and in the weight; the bias is that of the first piece. Of others one for
        each piece of every dimension with several groups (a concatenation per input, element-wise work per range of
        channels): exactly additive in elements. What remains with more than two groups cannot be taken apart (grouped
        and recurrent operators): its `macs` and `elements` have `Size.pieces`.
        """
        if len(self.groups) <= 2 or self.kind in ("grouped", "recurrent", "attention"):
            return (self,)
        if self.kind in ("conv", "conv_transpose", "linear") and len(self.inputs) == 1 and self.parameters:
            sides = self.dims["inputs"].pieces(), self.dims["outputs"].pieces()
            return tuple(self._between(i, o, first=i is sides[0][0]) for o in sides[1] for i in sides[0])
        if any(sum(bool(size.groups) for size in shape) > 1 for shape in self.shapes):
            return (self,)
        sizes = [size for shape in self.outputs for size in shape if size.groups]
        ranges = list(dict.fromkeys(piece.groups for size in sizes for piece in size.pieces()))
        return tuple(self._along(groups, first=groups == ranges[0]) for groups in ranges)

    def _between(self, source: Size, target: Size, *, first: bool) -> OperatorShape:
        """From one piece of the input channels to one of the output channels."""
        (weight, shape), *rest = self.parameters
        ends = (source, target) if self.kind == "conv_transpose" else (target, source)
        channels = -1 if self.kind == "linear" else 1 - len(shape)
        inputs, outputs = _with(self.inputs[0], channels, source), _with(self.outputs[0], channels, target)
        over = inputs if self.kind == "conv_transpose" else outputs
        shape = (*ends, *shape[2:])
        bias = tuple((name, (target,)) for name, _ in rest if first)
        return replace(
            self,
            inputs=(inputs,),
            outputs=(outputs,),
            parameters=((weight, shape), *bias),
            macs=product(over) * product(shape[1:]),
            dims=MappingProxyType({**self.dims, "inputs": source, "outputs": target}),
        )

    def _along(self, groups: tuple[str, ...], *, first: bool) -> OperatorShape:
        """Only the range of channels of these groups (none: those that are never removed); the first has the rest."""

        def piece(size: Size) -> Size:
            return next((p for p in size.pieces() if p.groups == groups), self._zero) if size.groups else size

        def pieces(shapes: Iterable[tuple[str, Shape]]) -> tuple[tuple[str, Shape], ...]:
            own = [(n, shape) for n, shape in shapes if first or any(size.groups for size in shape)]
            changed = ((name, tuple(map(piece, shape))) for name, shape in own)
            return tuple((name, shape) for name, shape in changed if all(size.terms for size in shape))

        inputs = tuple(shape for _, shape in pieces(("", shape) for shape in self.inputs))
        outputs = tuple(shape for _, shape in pieces(("", shape) for shape in self.outputs))
        return replace(
            self, inputs=inputs, outputs=outputs, parameters=pieces(self.parameters), macs=self._macs(groups)
        )

    def _macs(self, groups: tuple[str, ...]) -> Size:
        found = (piece for piece in self.macs.pieces() if piece.groups == groups)
        return next(found, self._zero)


def _with(shape: Shape, dim: int, size: Size) -> Shape:
    dim %= len(shape)
    return (*shape[:dim], size, *shape[dim + 1 :])


def block_gates(captured: Captured) -> dict[str, tuple[str, ...]]:
    """Per node the blocks that it vanishes with: those that it is in, and the one whose addition it is."""
    gates: dict[str, list[str]] = {}
    for block in captured.blocks:
        for node in (*block.nodes, block.addition):
            gates.setdefault(node, []).append(block.name)
    return {node: tuple(names) for node, names in gates.items()}


def sizes_at_one(captured: Captured) -> tuple[Sizes, int | None]:
    """Sizes at batch 1, and the batch to look at the graph's symbolic sizes with (None: as it was captured)."""
    batch = batch_of(captured.module.graph) if captured.batch_dynamic else None
    other = None if batch in (None, 1) else 1
    return Sizes.of(captured.coupling_at(other), captured.groups), other


def operator_shapes(captured: Captured) -> tuple[OperatorShape, ...]:
    """Every operator that computes or copies, in graph order; views are none. Linear in the size of the graph."""
    sizes, batch = sizes_at_one(captured)
    with at_batch(batch):
        return tuple(_found(captured, sizes).values())


def _found(captured: Captured, sizes: Sizes) -> dict[str, OperatorShape]:
    coupling, gates = sizes.coupling, block_gates(captured)
    shapes: dict[Node, tuple[Shape, ...]] = {}

    def shapes_of(node: Node) -> tuple[Shape, ...]:
        if node not in shapes:
            value = coupling.labels.get(node)
            values = value if isinstance(value, list | tuple) else [value]
            shapes[node] = tuple(sizes.shape(item) for item in values if isinstance(item, Labels))
        return shapes[node]

    def shape_of(node: Node) -> Shape:
        return next(iter(shapes_of(node)), ())

    found: dict[str, OperatorShape] = {}
    for node in captured.module.graph.nodes:
        call = coupling.calls.get(node)
        if call is None or not is_operator(node) or not computes(call, coupling.labels[node]):
            continue
        operands = [n for n in operands_of(node) if isinstance(coupling.labels.get(n), Labels)]
        named = {name: sizes.shape(labels) for name, labels in call.tensors()}
        macs = macs_with(node, shape_of)
        kind = kind_of(call)
        source = next(iter(named.values()), ())
        shape = OperatorShape(
            node=node.name,
            operator=call.name,
            kind=kind,
            layer=layer_of(node),
            inputs=tuple(shape_of(n) for n in operands if not coupling.is_static(n)),
            parameters=tuple(
                (str(n.target) if n.op == "get_attr" else n.name, shape_of(n))
                for n in operands
                if coupling.is_static(n)
            ),
            outputs=shapes_of(node),
            dims=MappingProxyType(dims_of(kind, named, shape_of(node))),
            settings=settings_of(call, named.get("weight", ()), source),
            macs=macs if isinstance(macs, Size) else Size.of({(): macs}, sizes.units),
            folded=coupling.is_static(node),
            blocks=gates.get(node.name, ()),
            units=sizes.units,
        )
        found[node.name] = shape
        _absorb(found, shape, node, activation_of(call))
    return found


def _absorb(found: dict[str, OperatorShape], shape: OperatorShape, node: Node, activation: str) -> None:
    """Let the contraction before it take a batch-norm, or an activation, that is all that reads its result."""
    source = node.args[0] if node.args else None
    if not isinstance(source, Node) or len(source.users) != 1 or source.name not in found:
        return
    before = found[source.name]
    normalises = shape.operator.rstrip("_") == "batch_norm"
    if normalises and before.kind in CONTRACTIONS - {"matmul"}:
        found[shape.node] = replace(shape, folded=True, fused=before.node)
    if not activation:
        return
    if before.folded and before.fused:
        before = found[before.fused]
    if before.kind in CONTRACTIONS and not before.activation and not before.folded:
        found[before.node] = replace(before, activation=activation)
        found[shape.node] = replace(shape, fused=before.node)


def operators_at(
    shapes: Iterable[OperatorShape], kept: Mapping[str, int] = MappingProxyType({}), dropped: Collection[str] = ()
) -> dict[str, Concrete]:
    """Per node the operator as it is with so many kept units per group and without the dropped blocks."""
    gone = frozenset(dropped)
    return {shape.node: shape.at(kept) for shape in shapes if gone.isdisjoint(shape.blocks)}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A trained parameter: its size, and the blocks that it vanishes with."""

    name: str
    shape: Shape
    blocks: tuple[str, ...]


def trained(captured: Captured) -> tuple[Tensor, ...]:
    """The parameters, tied ones once; their elements sum up to `Cost.params`."""
    sizes, _ = sizes_at_one(captured)
    gates: dict[str, list[str]] = {}
    for block in captured.blocks:
        for name in block.parameters:
            gates.setdefault(name, []).append(block.name)
    seen: set[int] = set()
    found = []
    for name, labels in sizes.coupling.parameters.items():
        if name not in sizes.coupling.buffers and id(labels) not in seen:
            seen.add(id(labels))
            found.append(Tensor(name, sizes.shape(labels), tuple(gates.get(name, ()))))
    return tuple(found)


def inner_groups(captured: Captured) -> dict[str, tuple[str, ...]]:
    """Per block the groups that matter inside it alone: all of their members are its own parameters."""
    return {
        block.name: tuple(g.name for g in captured.groups if {m.parameter for m in g.members} <= set(block.parameters))
        for block in captured.blocks
    }
