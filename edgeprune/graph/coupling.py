"""Coupling: one walk over the graph that finds which indices of which parameters can only go together.

The walk gives each tensor its labels by the rule of the operator that made it (`rules/`). Rules tie atoms,
freeze them, and note where an operator contracts or mixes a labelled dimension (verification needs it).
An operator without a rule is a barrier: all that flows in is frozen, all that flows out is fixed.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch
from torch.fx import GraphModule, Node

from edgeprune.errors import UsageError
from edgeprune.graph.call import Call, Value, bind
from edgeprune.graph.constants import Attributes, Constants
from edgeprune.graph.labels import Atoms, Axis, Labels
from edgeprune.graph.operators import (
    SYMBOLIC,
    concrete,
    is_operator,
    layer_of,
    operator_name,
    shape_of,
)
from edgeprune.graph.ties import Ties

__all__ = ["Coupling", "Granularity", "Grouped", "Mixing", "Rule", "Split", "couple"]

Split = Literal["outer", "inner"]
Grouped = Literal["positions", "groups"]


@dataclass(frozen=True, slots=True)
class Granularity:
    """What is removed at once where several choices are legal.

    `split`: of an axis that is split in two, the outer part (whole heads) or the inner one (the head size).
    `grouped`: of grouped operators, the same positions in every group, or whole groups.
    """

    split: Split = "outer"
    grouped: Grouped = "positions"

    def __post_init__(self) -> None:
        """Raises UsageError."""
        for name, value, kind in (("granularity", self.split, Split), ("grouped", self.grouped, Grouped)):
            if value not in get_args(kind):
                valid = ", ".join(get_args(kind))
                raise UsageError(f"{name} cannot be {value!r}", hint=f"valid here: {valid}")


_DEFAULT = Granularity()
_NUMBERS = (int, float, bool, *SYMBOLIC)


Rule = Callable[["Coupling", Call], "Labels | list[Labels]"]


@dataclass(frozen=True, slots=True)
class Mixing:
    """A node that mixes the labelled dimensions `dims` of its argument: computed over the kept units only."""

    node: Node
    argument: str
    labels: Labels
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Contraction:
    """A node that sums over dimension `dim` of its argument: removed units contribute nothing."""

    node: Node
    argument: str
    dim: int


@dataclass(slots=True)
class Coupling(Ties):
    """The state of the walk, and afterwards its outcome."""

    granularity: Granularity = _DEFAULT
    labels: dict[Node, Value] = field(default_factory=dict)
    calls: dict[Node, Call] = field(default_factory=dict)
    contractions: list[Contraction] = field(default_factory=list)
    mixings: list[Mixing] = field(default_factory=list)
    roles: dict[tuple[str, int], str] = field(default_factory=dict)  # (parameter, dim) -> producer | consumer
    parameters: dict[str, Labels] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)  # those of them that do not train
    _owners: list[tuple[int, int, tuple[str, int]]] = field(default_factory=list)  # likewise, and whose they are
    _static: set[Node] = field(default_factory=set)  # nodes that no input takes part in
    _now: Node | None = None
    _named: tuple[Node, str] | None = None
    _constants: Constants = field(init=False)

    # What rules use

    def freeze(self, atoms: Atoms, why: str) -> None:
        """These atoms can never go; `why` completes the sentence "<operator> in <layer> ..."."""
        if atoms.size:
            Ties.freeze(self, atoms, self._where() + why)

    def _where(self) -> str:
        """The subject of the sentence; worked out once per node."""
        node = self._now
        if node is None or node.op != "call_function":
            return ""
        if self._named is None or self._named[0] is not node:
            self._named = node, f"{operator_name(node)} in {layer_of(node) or 'the model itself'} "
        return self._named[1]

    def freeze_axes(self, labels: Labels, dims: Sequence[int], why: str) -> Labels:
        """Freeze what is labelled on the dimensions, and give back the labels that remain.

        Joint axes give up only those dimensions.
        """
        chosen = {dim % len(labels.shape) for dim in dims} if labels.shape else set()
        for dim in chosen:
            axis = labels.axis(dim)
            if axis is None:
                continue
            rest = [d for d in axis.dims if d not in chosen]
            if rest:
                labels = self.separate(labels, axis, rest)
            else:
                self.freeze(axis.atoms, why)
                labels = Labels(labels.shape, tuple(a for a in labels.axes if a is not axis))
        return labels

    def separate(self, labels: Labels, axis: Axis, dims: Sequence[int]) -> Labels:
        """Let only `dims` of a joint axis decide: its atoms are tied along all others."""
        if set(axis.dims) <= set(dims):
            return labels
        index = tuple(slice(None) if dim in dims else slice(0, 1) for dim in axis.dims)
        self.tie(axis.atoms[index], axis.atoms)
        left = Axis(
            tuple(d for d in axis.dims if d in dims),
            axis.atoms[index].reshape(tuple(axis.atoms.shape[i] for i, d in enumerate(axis.dims) if d in dims)),
        )
        return Labels(labels.shape, tuple(left if a is axis else a for a in labels.axes))

    def deciding(self, axis: Axis) -> int:
        """The dimension that decides where a joint axis must be separated: heads, or head size."""
        return axis.leading() if self.granularity.split == "outer" else axis.trailing()

    def along(self, labels: Labels, dim: int) -> tuple[Labels, Atoms | None]:
        """The atoms along one dimension that alone must decide; None where it is fixed."""
        axis = labels.axis(dim)
        if axis is None:
            return labels, None
        if axis.is_joint:
            labels = self.separate(labels, axis, [dim % len(labels.shape)])
            axis = labels.axis(dim)
        return labels, None if axis is None else axis.atoms

    def contracted(self, argument: str, dim: int) -> None:
        self.contractions.append(Contraction(cast("Node", self._now), argument, dim))

    def mixed(self, argument: str, labels: Labels, dims: Sequence[int]) -> None:
        """Note that the operator mixes dimensions of its argument, which has these labels by now."""
        if dims:
            self.mixings.append(Mixing(cast("Node", self._now), argument, labels, tuple(dims)))

    def is_static(self, node: object) -> bool:
        """Whether no input takes part in a node's value."""
        return node in self._static

    def role(self, node: object, dim: int, role: str) -> None:
        """Note what a dimension of a parameter does, where the node is one, or is computed from parameters alone."""
        if not isinstance(node, Node) or not self.is_static(node):
            return
        if node.op == "get_attr":
            self.roles.setdefault((str(node.target), dim), role)
            return
        labels = self.labels[node]
        axis = labels.axis(dim) if isinstance(labels, Labels) else None
        if axis is not None and self._owners:
            atom = int(axis.atoms.flat[0])
            first, end, place = self._owners[bisect_right(self._owners, atom, key=lambda owner: owner[0]) - 1]
            if first <= atom < end:
                self.roles.setdefault(place, role)

    # The walk

    def walk(self, module: GraphModule, rules: Mapping[str, Rule], barrier: Rule) -> None:
        """Label every node of the graph, then find the components."""
        seen: dict[int, str] = {}
        attributes = Attributes(module)
        self._constants = Constants(attributes)
        for node in module.graph.nodes:
            self._now = node
            if node.op != "placeholder" and self._static.issuperset(node.all_input_nodes):
                self._static.add(node)
            if node.op == "get_attr":
                self.labels[node] = self._parameter(attributes, str(node.target), seen)
            elif node.op == "call_function":
                self.labels[node] = self._call(node, rules, barrier)
            elif node.op == "output":
                for used in node.all_input_nodes:
                    self._freeze_all(self.labels[used], "is the model's output")
            else:
                self.labels[node] = _fixed(node)
        self._now = None
        self.connect()

    def _parameter(self, attributes: Attributes, name: str, seen: dict[int, str]) -> Value:
        tensor = attributes[name]
        if not isinstance(tensor, torch.Tensor):
            return tensor
        if not isinstance(tensor, torch.nn.Parameter):
            self.buffers.add(name)
        first = seen.setdefault(id(tensor), name)
        if first != name:  # tied parameters share their atoms
            self.parameters[name] = self.parameters[first]
        if name not in self.parameters:
            shape = tuple(tensor.shape)
            axes = []
            for dim, size in enumerate(shape):
                if size > 1:
                    self._owners.append((self._atoms, self._atoms + size, (name, dim)))
                    axes.append(Axis((dim,), self.fresh(size)))
            self.parameters[name] = Labels(shape, tuple(axes) if tensor.is_floating_point() else ())
        return self.parameters[name]

    def _call(self, node: Node, rules: Mapping[str, Rule], barrier: Rule) -> Value:
        if node.target is operator.getitem:
            source = self.labels[cast("Node", node.args[0])]
            return source[cast("int", node.args[1])]
        value = node.meta.get("val")
        if value is None or isinstance(value, _NUMBERS):
            for used in node.all_input_nodes:  # asserts, sizes: a size that depends on a prunable dimension is fixed
                if value is None:
                    self._freeze_all(self.labels[used], "has no result")
            return concrete(value)
        call = bind(node, self.labels, self._constants)
        self.calls[node] = call
        known = rules.get(call.name) or rules.get(call.name.rstrip("_"), barrier)
        rule = known if is_operator(node) else barrier
        result = rule(self, call)
        for labels in result if isinstance(result, list) else [result]:
            for axis in labels.axes:
                self.block(axis)
        return result

    def _freeze_all(self, value: Value, why: str) -> None:
        for labels in value if isinstance(value, list) else [value]:
            if isinstance(labels, Labels):
                for axis in labels.axes:
                    self.freeze(axis.atoms, why)


def couple(module: GraphModule, granularity: Granularity = _DEFAULT) -> Coupling:
    """Walk a captured graph; nodes carry their (fake) values in `meta["val"]`."""
    from edgeprune.graph.rules.table import BARRIER, RULES

    coupling = Coupling(granularity=granularity)
    coupling.walk(module, RULES, BARRIER)
    return coupling


def _fixed(node: Node) -> Value:
    value = node.meta.get("val")
    return Labels(shape_of(value)) if isinstance(value, torch.Tensor) else concrete(value)
