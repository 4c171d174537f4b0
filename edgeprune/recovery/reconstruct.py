"""Recovery without labels or training: each consumer of removed units learns the dense model's output anew.

Layer by layer in graph order, from the pruned network's own inputs to the dense network's outputs, so that errors do
not pile up (He et al. 2017, arXiv:1707.06168, section 3.2; ThiNet, Luo et al. 2017, arXiv:1707.06342, section 3.2.3).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.errors import TaskError, UsageError
from edgeprune.graph.coupling import Coupling
from edgeprune.graph.edit import Keep
from edgeprune.progress import SILENT, Progress
from edgeprune.recovery.consumers import Consumer, consumers, input_of
from edgeprune.recovery.distillation import recorded
from edgeprune.recovery.normal_equations import NormalEquations
from edgeprune.training_data import LossFn

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured, Pruned

__all__ = ["LayerReconstruction", "Method", "Reconstruction", "held_back", "reconstruct"]

Method = Literal["least-squares", "bias"]
_RIDGE = 1e-4  # of the inputs' mean variance
_HELD_BACK = 4  # every fourth batch judges, the others are fitted
_ROWS_PER_INPUT = 32  # equations sampled per unknown, at least
_LEAST_ROWS = 16384


@dataclass(frozen=True, slots=True)
class LayerReconstruction:
    """One consumer. Errors are Σ(output - dense output)² over the dense output's variation, on held-back batches."""

    name: str  # of the weight
    error_before: float | None  # None where it was not asked for: the layer cannot be fitted
    error_after: float | None  # the same as before where the old weight was kept
    note: str  # why it was kept; "" where it was replaced
    seconds: float

    @property
    def replaced(self) -> bool:
        """Whether the layer has a new weight or bias."""
        return not self.note


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What was reconstructed, in graph order."""

    method: Method
    layers: tuple[LayerReconstruction, ...]
    batches: int
    seconds: float

    @property
    def replaced(self) -> int:
        """How many layers have new weights."""
        return sum(layer.replaced for layer in self.layers)


def held_back(number: int) -> bool:
    """Whether nothing is fitted to the batch of this number: it judges."""
    return number % _HELD_BACK == 1


def reconstruct(
    pruned: Pruned,
    captured: Captured,
    batches: Iterable[Any],
    *,
    loss: LossFn | None = None,
    method: Method = "least-squares",
    max_batches: int = 32,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Reconstruction:
    """Fit the consumers of removed units to the dense model's outputs; changes `pruned.module`, left in eval mode.

    A batch is the model's input, or the tuple of its inputs; with `loss` it is whatever `loss(model, batch)` takes, of
    which only the inputs to the model are used. "least-squares" finds weight and bias, near the old weight where the
    data does not say; "bias" only compensates the mean of what was removed. A bias is added where the operator takes
    one and has none. Every fourth batch is held back: a layer keeps its weight where its error there does not fall.
    At most `max_batches` batches are held in memory; positions of large layers are sampled by `seed`. An interruption
    puts everything back. Raises TaskError where there are fewer than two batches, UsageError where `pruned` was not
    pruned from `captured`.
    """
    if method not in get_args(Method):
        raise UsageError(f"there is no reconstruction {method!r}", hint=f"one of {', '.join(get_args(Method))}")
    started = time.monotonic()
    module, dense = pruned.module, captured.module
    coupling, keep = _coupled(pruned, captured)
    work = list(consumers(dense, module, coupling, keep))
    layers: list[LayerReconstruction] = []
    changes: list[_Change] = []
    module.eval()
    with _evaluating(dense), torch.no_grad():
        inputs = _inputs(module, islice(batches, max_batches), loss)
        try:
            with progress.step("reconstruction", len(work)) as step:
                for consumer in work:
                    change = _Change(module, consumer)
                    changes.append(change)
                    layers.append(_layer(change, module, dense, inputs, method=method, seed=seed))
                    error = layers[-1].error_after
                    step.advance(1, consumer.name if error is None else f"{consumer.name}: error {error:.3g}")
        except BaseException:
            for change in reversed(changes):
                change.undo()
            raise
        finally:
            pruned.graph_changed()
    return Reconstruction(method, tuple(layers), len(inputs), time.monotonic() - started)


def _coupled(pruned: Pruned, captured: Captured) -> tuple[Coupling, Keep]:
    """The coupling of the dense graph, and which of its atoms the pruned one has."""
    hint = "give the captured model that prune() was called on"
    try:
        coupling, keep = captured.kept_atoms(pruned.candidate)
    except UsageError as error:
        raise UsageError(f"the pruned network was not pruned from this model: {error}", hint=hint) from error
    for name, parameter in pruned.module.named_parameters():
        labels = coupling.parameters.get(name)
        if labels is not None and labels.kept_shape(keep) != tuple(parameter.shape):
            raise UsageError(f"the pruned network was not pruned from this model: {name} differs", hint=hint)
    return coupling, keep


def _layer(
    change: _Change, module: GraphModule, dense: GraphModule, inputs: Sequence[Any], *, method: Method, seed: int
) -> LayerReconstruction:
    started = time.monotonic()
    consumer = change.consumer
    if consumer.refused is not None:
        return LayerReconstruction(consumer.name, None, None, consumer.refused, 0.0)
    weight, bias = consumer.value(module), consumer.bias_value(module)
    start = consumer.matrix(weight).double()
    groups, width, outputs = start.shape
    offset = torch.zeros(groups * outputs) if bias is None else bias
    start = torch.cat([start, offset.double().reshape(groups, 1, outputs)], dim=1)
    fitted, judged = (NormalEquations.zeros(groups, width, outputs) for _ in range(2))
    wanted = max(_LEAST_ROWS, _ROWS_PER_INPUT * width) // len(inputs) + 1
    generator = torch.Generator().manual_seed(seed)
    for number, batch in enumerate(inputs):
        given = _value_at(module, input_of(consumer.node), batch)
        output = _value_at(dense, consumer.dense, batch)
        positions = consumer.positions(output)
        chosen = torch.arange(positions)
        if positions > wanted:
            chosen = torch.randperm(positions, generator=generator)[:wanted]
        equations = judged if held_back(number) else fitted
        for x, y in consumer.rows(given, output, weight.shape[2:], chosen, equations.rows_at_once(groups * width)):
            equations.add(x, y)
    adds = bias is not None or consumer.can_add_bias
    solution = fitted.solve(start, ridge=_RIDGE, weights=method == "least-squares", intercept=adds)
    before, after = judged.error(start), judged.error(solution)
    if after < before:  # false for NaN as well
        change.make(solution)
        return LayerReconstruction(consumer.name, before, after, "", time.monotonic() - started)
    note = "the error on held-back batches did not fall"
    return LayerReconstruction(consumer.name, before, before, note, time.monotonic() - started)


class _Change:
    """The new weight and bias of one layer, and the way back."""

    def __init__(self, module: GraphModule, consumer: Consumer) -> None:
        self.consumer = consumer
        self._module = module
        self._before: list[tuple[Tensor, Tensor]] = []
        self._added: tuple[Node, tuple[Any, ...], dict[str, Any]] | None = None

    def make(self, solution: Tensor) -> None:
        """Write the solution (groups, inputs + 1, outputs per group) into the module."""
        consumer, module = self.consumer, self._module
        weight, bias = consumer.value(module), consumer.bias_value(module)
        self._before = [(tensor, tensor.detach().clone()) for tensor in (weight, bias) if tensor is not None]
        weight.copy_(consumer.from_matrix(solution[:, :-1], weight))
        intercept = solution[:, -1].flatten()
        if bias is not None:
            bias.copy_(intercept)
        elif consumer.can_add_bias:
            self._add_bias(nn.Parameter(intercept.to(weight.dtype), weight.requires_grad))

    def undo(self) -> None:
        """Put the old weight and bias back."""
        for tensor, before in self._before:
            tensor.copy_(before)
        if self._added is not None:
            added, args, kwargs = self._added
            self.consumer.node.args, self.consumer.node.kwargs = args, kwargs
            self.consumer.node.graph.erase_node(added)
            owner, _, name = str(added.target).rpartition(".")
            delattr(self._module.get_submodule(owner), name)
            self._module.recompile()

    def _add_bias(self, value: nn.Parameter) -> None:
        node, module = self.consumer.node, self._module
        owner, _, weight_name = self.consumer.name.rpartition(".")
        parent = module.get_submodule(owner)
        name = "bias" if weight_name == "weight" and not hasattr(parent, "bias") else f"{weight_name}_bias"
        while hasattr(parent, name):
            name += "_"
        parent.register_parameter(name, value)
        with node.graph.inserting_after(self.consumer.weight):
            added = node.graph.get_attr(f"{owner}.{name}" if owner else name)
        added.meta["val"] = torch.empty_like(value, device="meta")
        self._added = (added, node.args, dict(node.kwargs))
        if len(node.args) > 2:
            node.update_arg(2, added)
        else:
            node.args = (*node.args, added)
        module.recompile()


class _Reached(Exception):  # noqa: N818  the way out of an interpreter
    def __init__(self, value: Tensor) -> None:
        self.value = value


class _UpTo(Interpreter):
    """Runs a graph up to one node and no further."""

    def __init__(self, module: GraphModule, last: Node) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._last = last

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n is self._last:
            raise _Reached(value)
        return value


def _value_at(module: GraphModule, node: Node, inputs: tuple[Tensor, ...]) -> Tensor:
    """The value of a node for these inputs of the module."""
    try:
        _UpTo(module, node).run(*inputs)
    except _Reached as reached:
        return reached.value
    raise AssertionError(f"{node.name} was not reached")


def _inputs(module: GraphModule, batches: Iterable[Any], loss: LossFn | None) -> list[tuple[Tensor, ...]]:
    """The module's positional inputs of each batch."""
    found: list[tuple[Tensor, ...]] = []
    expected = sum(node.op == "placeholder" for node in module.graph.nodes)
    for batch in batches:
        if loss is None:
            given = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
            hint = "for labelled batches give the loss that calls the model: reconstruct(..., loss=task.loss)"
        else:
            hint = "call model(x) inside loss, with positional inputs"
            with recorded(module) as calls:
                loss(module, batch)
            if len(calls) != 1 or calls[0][1]:
                raise TaskError("loss(model, batch) must call the model once, with positional inputs", hint=hint)
            given = calls[0][0]
        if len(given) != expected or not all(isinstance(value, Tensor) for value in given):
            raise TaskError(f"a batch has {len(given)} parts, but the model takes {expected} tensors", hint=hint)
        found.append(given)
    if len(found) < 2:
        raise TaskError(
            f"reconstruction needs at least two batches, and there {'was one' if found else 'were none'}",
            hint="one of them is held back to judge; give smaller batches",
        )
    return found


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
