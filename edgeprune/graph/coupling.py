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
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.fx import GraphModule, Node

from edgeprune.graph.constants import Constants, attribute
from edgeprune.graph.labels import Atoms, Axis, Labels
from edgeprune.graph.operators import (
    argument_names,
    concrete,
    is_operator,
    layer_of,
    operator_name,
    schema_of,
    shape_of,
)

__all__ = ["Call", "Coupling", "Granularity", "Grouped", "Mixing", "Rule", "Split", "couple"]

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


_DEFAULT = Granularity()
Value = Any  # Labels, a list of Labels, or a plain constant


@dataclass(slots=True)
class Call:
    """One operator call with its arguments bound to the names of the operator's schema.

    Tensors are given as Labels, lists of tensors as lists of Labels, all else as concrete Python values.
    """

    node: Node
    name: str  # "conv2d"
    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]  # of the outputs
    constants: Constants

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    def node_of(self, name: str) -> Any:
        """The argument as it stands in the graph: a node, a list of nodes, or a literal."""
        names = argument_names(self.node)
        position = names.index(name)
        return self.node.args[position] if position < len(self.node.args) else self.node.kwargs.get(name)

    def constant(self, node: object) -> torch.Tensor | None:
        """The value of an argument that is always the same tensor."""
        return self.constants.value(node)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    def tensors(self) -> list[tuple[str, Labels]]:
        """All tensor arguments with their names, members of lists one by one."""
        found: list[tuple[str, Labels]] = []
        for name, value in self.arguments.items():
            values = value if isinstance(value, list | tuple) else [value]
            found.extend((name, item) for item in values if isinstance(item, Labels))
        return found


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
class Coupling:
    """The state of the walk, and afterwards its outcome."""

    granularity: Granularity = _DEFAULT
    labels: dict[Node, Value] = field(default_factory=dict)
    calls: dict[Node, Call] = field(default_factory=dict)
    contractions: list[Contraction] = field(default_factory=list)
    mixings: list[Mixing] = field(default_factory=list)
    roles: dict[tuple[str, int], str] = field(default_factory=dict)  # (parameter, dim) -> producer | consumer
    parameters: dict[str, Labels] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)  # those of them that do not train
    component: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))  # of each atom
    reasons: dict[int, str] = field(default_factory=dict)  # frozen component -> why
    _atoms: int = 1
    _ties: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    _freezes: list[tuple[Atoms, str]] = field(default_factory=list)
    _blocks: list[Axis] = field(default_factory=list)
    _free: list[tuple[int, int]] = field(default_factory=list)  # ranges of atoms, ascending
    _owners: list[tuple[int, int, tuple[str, int]]] = field(default_factory=list)  # likewise, and whose they are
    _static: set[Node] = field(default_factory=set)  # nodes that no input takes part in
    _now: Node | None = None
    _constants: Constants = field(init=False)

    # What rules use

    def fresh(self, *shape: int) -> Atoms:
        """New atoms, in an array of the shape."""
        count = int(np.prod(shape))
        atoms = np.arange(self._atoms, self._atoms + count, dtype=np.int64).reshape(shape)
        self._atoms += count
        return atoms

    def free(self, *shape: int) -> Atoms:
        """New atoms of indices that are all alike (an expanded or filled dimension): any of them may go."""
        first = self._atoms
        atoms = self.fresh(*shape)
        self._free.append((first, self._atoms))
        return atoms

    def is_free(self, axis: Axis) -> bool:
        """Whether the axis has only such atoms."""
        atom = int(axis.atoms.flat[0])
        found = bisect_right(self._free, (atom, self._atoms)) - 1
        return found >= 0 and self._free[found][0] <= atom < self._free[found][1]

    def tie(self, first: Atoms, second: Atoms) -> None:
        """Index by index (shapes broadcast), two atoms can only go together."""
        a, b = (array.ravel() for array in np.broadcast_arrays(first, second))
        fixed = (a == 0) != (b == 0)
        if fixed.any():
            self.freeze((a + b)[fixed], "is tied to a fixed dimension")
        both = (a != 0) & (b != 0) & (a != b)
        if both.any():
            self._ties.append((a[both], b[both]))

    def freeze(self, atoms: Atoms, why: str) -> None:
        """These atoms can never go; `why` completes the sentence "<operator> in <layer> ..."."""
        if atoms.size:
            where = ""
            if self._now is not None and self._now.op == "call_function":
                where = f"{operator_name(self._now)} in {layer_of(self._now) or 'the model itself'} "
            self._freezes.append((atoms.ravel(), where + why))

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
        labels = self.separate(labels, axis, [dim % len(labels.shape)])
        axis = labels.axis(dim)
        return labels, None if axis is None else axis.atoms

    def block(self, axis: Axis) -> None:
        """What is kept of a joint axis must remain a full block, without holes."""
        if axis.is_joint:
            self._blocks.append(axis)

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
        self._constants = Constants(module)
        for node in module.graph.nodes:
            self._now = node
            if node.op != "placeholder" and self._static.issuperset(node.all_input_nodes):
                self._static.add(node)
            if node.op == "get_attr":
                self.labels[node] = self._parameter(module, str(node.target), seen)
            elif node.op == "call_function":
                self.labels[node] = self._call(node, rules, barrier)
            elif node.op == "output":
                for used in node.all_input_nodes:
                    self._freeze_all(self.labels[used], "is the model's output")
            else:
                self.labels[node] = _fixed(node)
        self._now = None
        self._connect()

    def _parameter(self, module: GraphModule, name: str, seen: dict[int, str]) -> Value:
        tensor = attribute(module, name)
        if not isinstance(tensor, torch.Tensor):
            return tensor
        if not isinstance(tensor, torch.nn.Parameter):
            self.buffers.add(name)
        first = seen.setdefault(id(tensor), name)
        if first != name:  # tied parameters share their atoms
            self.parameters[name] = self.parameters[first]
        if name not in self.parameters:
            shape = tuple(tensor.shape)
            axes = [Axis((d,), self.fresh(n)) for d, n in enumerate(shape) if n > 1]
            self._owners += [(int(a.atoms[0]), int(a.atoms[-1]) + 1, (name, a.dims[0])) for a in axes]
            self.parameters[name] = Labels(shape, tuple(axes) if tensor.is_floating_point() else ())
        return self.parameters[name]

    def _call(self, node: Node, rules: Mapping[str, Rule], barrier: Rule) -> Value:
        if node.target is operator.getitem:
            source = self.labels[cast("Node", node.args[0])]
            return source[cast("int", node.args[1])]
        value = node.meta.get("val")
        if value is None or isinstance(value, int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool):
            for used in node.all_input_nodes:  # asserts, sizes: a size that depends on a prunable dimension is fixed
                if value is None:
                    self._freeze_all(self.labels[used], "has no result")
            return concrete(value)
        name = operator_name(node)
        call = Call(node, name, self._bind(node), _shapes(value), self._constants)
        self.calls[node] = call
        known = rules.get(name, rules.get(name.rstrip("_"), barrier))
        rule = known if is_operator(node) else barrier
        result = rule(self, call)
        for labels in result if isinstance(result, list) else [result]:
            for axis in labels.axes:
                self.block(axis)
        return result

    def _bind(self, node: Node) -> dict[str, Any]:
        def value(argument: object) -> Any:
            if isinstance(argument, Node):
                return self.labels[argument]
            if isinstance(argument, list | tuple):
                return [value(item) for item in argument]
            return argument

        if not is_operator(node):
            return {f"arg{i}": value(argument) for i, argument in enumerate(node.args)}
        bound: dict[str, Any] = {}
        for i, formal in enumerate(schema_of(node).arguments):
            if i < len(node.args):
                bound[formal.name] = value(node.args[i])
            elif formal.name in node.kwargs:
                bound[formal.name] = value(node.kwargs[formal.name])
            elif formal.has_default_value():
                bound[formal.name] = formal.default_value
        return bound

    def _freeze_all(self, value: Value, why: str) -> None:
        for labels in value if isinstance(value, list) else [value]:
            if isinstance(labels, Labels):
                for axis in labels.axes:
                    self.freeze(axis.atoms, why)

    # The outcome

    def _connect(self) -> None:
        while True:
            self._components()
            frozen = np.zeros(int(self.component.max()) + 1, np.bool_)
            frozen[list(self.reasons)] = True
            ties = len(self._ties)
            for axis in self._blocks:
                self._keep_block(axis, frozen)
            if len(self._ties) == ties:
                return

    def _components(self) -> None:
        first = np.concatenate([a for a, _ in self._ties] or [np.zeros(0, np.int64)])
        second = np.concatenate([b for _, b in self._ties] or [np.zeros(0, np.int64)])
        edges = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(self._atoms, self._atoms))
        _, component = connected_components(edges, directed=False)
        self.component = component.astype(np.int64)
        self.reasons = {int(self.component[0]): "is not a parameter"}
        if self._freezes:
            frozen = self.component[np.concatenate([atoms for atoms, _ in self._freezes])]
            ends = np.cumsum([len(atoms) for atoms, _ in self._freezes])
            components, places = np.unique(frozen, return_index=True)
            for found, first_freeze in zip(components, np.searchsorted(ends, places, side="right"), strict=True):
                self.reasons.setdefault(int(found), self._freezes[first_freeze][1])

    def _keep_block(self, axis: Axis, frozen: NDArray[np.bool_]) -> None:
        component = self.component[axis.atoms]
        component[frozen[component]] = int(self.component[0])
        varying = [i for i in range(component.ndim) if (component != component.take([0], axis=i)).any()]
        if len(varying) <= 1:
            return
        # Not separated by any operator: the same positions in every block (grouped convolution, channel shuffle).
        inner = axis.dims.index(axis.trailing())
        keep = inner if inner in varying else varying[-1]
        index = tuple(slice(None) if i == keep else slice(0, 1) for i in range(component.ndim))
        self.tie(axis.atoms[index], axis.atoms)


def couple(module: GraphModule, granularity: Granularity = _DEFAULT) -> Coupling:
    """Walk a captured graph; nodes carry their (fake) values in `meta["val"]`."""
    from edgeprune.graph.rules.table import BARRIER, RULES

    coupling = Coupling(granularity)
    coupling.walk(module, RULES, BARRIER)
    return coupling


def _shapes(value: Any) -> tuple[tuple[int, ...], ...]:
    if isinstance(value, list | tuple):
        return tuple(shape_of(item) if isinstance(item, torch.Tensor) else () for item in value)
    return (shape_of(value),)


def _fixed(node: Node) -> Value:
    value = node.meta.get("val")
    return Labels(shape_of(value)) if isinstance(value, torch.Tensor) else concrete(value)
