"""Write-back: the pruned weights go into the user's own module, whose forward must then compute the same."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule, Node

from edgeprune.errors import CaptureError, UsageError, VerificationError
from edgeprune.graph.operators import argument_names, is_operator, operator_name, shape_of

if TYPE_CHECKING:
    from edgeprune.graph.captured import Pruned

__all__ = ["write_back"]

Names = Mapping[str, list[str]]
_HINT = "use pruned.module, which needs no class, or let forward take sizes from the tensors (x.shape, -1)"


def write_back(pruned: Pruned, model: nn.Module) -> None:
    """Give `model` the pruned parameters and buffers (copies) and the sizes that its layers say they have.

    The model is then captured again and compared with the pruned graph. Where its own forward stands in the way,
    UsageError says where, and the model is left as it was, to the tensor.
    """
    if pruned.candidate.dropped_blocks:
        raise UsageError(
            "blocks were dropped: the model's own forward still calls them", hint="use pruned.module and pruned.save"
        )
    undo: list[Callable[[], None]] = []
    names = _names(model, [name for name, _ in _tensors(pruned.module)])
    try:
        _assign_tensors(pruned.module, model, names, undo)
        _assign_sizes(pruned.module, model, names, undo)
        _compare(pruned, model)
    except BaseException:
        for step in reversed(undo):
            step()
        raise


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _names(model: nn.Module, wanted: Iterable[str]) -> dict[str, list[str]]:
    """Per name all names that the tensor has in the model: the graph knows what is shared by one of them."""
    own = dict(_tensors(model))
    by_tensor: dict[int, list[str]] = {}
    for name, tensor in own.items():
        by_tensor.setdefault(id(tensor), []).append(name)
    for name in wanted:
        if name.startswith("_table_"):
            raise UsageError("the model's own forward picks channels by an index or a step of its own", hint=_HINT)
        if name not in own and not _is_empty(model, name):
            hint = "give the very model that was captured"
            raise UsageError(f"the model has no parameter or buffer {name!r}", hint=hint)
    return {name: by_tensor[id(own[name])] if name in own else [name] for name in wanted}


def _is_empty(model: nn.Module, name: str) -> bool:
    """Whether a layer has a place for a parameter that it was made without (bias=False); reconstruction may add one."""
    path, _, last = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
    except AttributeError:
        return False
    return last in owner._parameters and owner._parameters[last] is None  # noqa: SLF001  as nn.Module's own setter does


def _assign_tensors(module: GraphModule, model: nn.Module, names: Names, undo: list[Callable[[], None]]) -> None:
    own = dict(_tensors(model))
    made: dict[int, torch.Tensor] = {}  # what is shared stays shared
    for name, tensor in _tensors(module):
        before = own.get(name, tensor)  # what reconstruction added replaces nothing
        if id(before) not in made:
            copy = tensor.detach().clone().to(before.device)
            is_parameter = isinstance(before, nn.Parameter)
            made[id(before)] = nn.Parameter(copy, before.requires_grad) if is_parameter else copy
        for alias in names[name]:
            path, _, last = alias.rpartition(".")
            owner = model.get_submodule(path)
            table: Any = owner._parameters if last in owner._parameters else owner._buffers  # noqa: SLF001  as nn.Module's own setter does
            undo.append(partial(table.__setitem__, last, table[last]))
            table[last] = made[id(before)]


def _assign_sizes(module: GraphModule, model: nn.Module, names: Names, undo: list[Callable[[], None]]) -> None:
    """The standard attributes of layers, from what the pruned graph does with their parameters."""
    tensors = dict(_tensors(module))
    for node in module.graph.nodes:
        if node.op != "call_function" or not is_operator(node):
            continue
        sources = [_argument(node, argument) for argument in ("weight", "running_mean")]
        source = next((s for s in sources if isinstance(s, Node) and str(s.target) in tensors), None)
        if source is None:
            continue
        sizes = _sizes(node, tuple(tensors[str(source.target)].shape))
        for alias in names[str(source.target)]:
            attributes = vars(model.get_submodule(alias.rpartition(".")[0]))
            for name in sizes.keys() & attributes.keys():
                undo.append(partial(attributes.__setitem__, name, attributes[name]))
                attributes[name] = sizes[name]


def _argument(node: Node, name: str) -> Any:
    names = argument_names(node)
    if name not in names:
        return None
    position = names.index(name)
    return node.args[position] if position < len(node.args) else node.kwargs.get(name)


def _sizes(node: Node, shape: tuple[int, ...]) -> dict[str, Any]:
    name = operator_name(node).rstrip("_")
    if name.startswith("conv"):
        groups = _argument(node, "groups") or 1
        inputs, outputs = shape[1] * groups, shape[0]
        if "transpose" in name:
            inputs, outputs = shape[0], shape[1] * groups
        return {"in_channels": inputs, "out_channels": outputs, "groups": groups}
    if name == "linear":
        return {"in_features": shape[1], "out_features": shape[0]}
    if name in ("layer_norm", "rms_norm"):
        return {"normalized_shape": shape}
    if name == "embedding":
        return {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    if name == "group_norm":
        return {"num_groups": _argument(node, "num_groups"), "num_channels": shape[0]}
    return {"num_features": shape[0]} if name.endswith("_norm") else {"num_parameters": shape[0]}


def _compare(pruned: Pruned, model: nn.Module) -> None:
    from edgeprune.graph.capture import capture, evaluation

    try:
        with evaluation(model), torch.no_grad():
            model(*pruned.example_inputs)
    except Exception as error:  # whatever the user's forward raises on other sizes than it was written for
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"{_place(error)}: the pruned sizes do not fit: {first}", hint=_HINT) from error
    where = ""
    try:
        again = capture(model, pruned.example_inputs)
        where = _first_other_shape(pruned.module, again.module)
        coupling, _ = pruned.kept_atoms(type(pruned.candidate)())
        pruned.check(again.module, np.ones(len(coupling.component), np.bool_))
    except (CaptureError, VerificationError) as error:
        raise UsageError(
            f"with the pruned weights the model's own forward computes something else{where}: {error.message}",
            hint=_HINT,
        ) from error


def _first_other_shape(pruned: GraphModule, again: GraphModule) -> str:
    """Where a size that is written out in the model's code makes another shape than the pruned graph has."""
    pairs = zip(*([n for n in m.graph.nodes if n.op == "call_function"] for m in (pruned, again)), strict=False)
    for wanted, found in pairs:
        values = wanted.meta.get("val"), found.meta.get("val")
        if wanted.target is found.target and all(isinstance(value, torch.Tensor) for value in values):
            shapes = [shape_of(value) for value in values]
            if shapes[0] != shapes[1]:
                lines = [line.strip() for line in str(found.meta.get("stack_trace") or "").strip().splitlines()]
                code = f" at {', '.join(lines[-2:])}" if lines else ""
                return f" ({operator_name(found)} makes {shapes[1]} instead of {shapes[0]}{code})"
    return ""


def _place(error: Exception) -> str:
    """The last line of the user's own code."""
    library = Path(torch.__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if library not in Path(f.filename).parents]
    frames = [frame for frame in frames if frame.filename != __file__]
    if not frames:
        return "the model's forward"
    return f"{frames[-1].filename}:{frames[-1].lineno}, in `{frames[-1].line}`"
