"""Examples without labels from a file, for a network that comes without a task.

images.npy     one array, of the network's only input, first dimension the examples
inputs.npz     one array per input, under the inputs' names
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import UsageError

if TYPE_CHECKING:
    import torch

    from edgeprune.graph.captured import Prunable

__all__ = ["Batch", "check_file", "load_calibration"]

Batch = tuple["torch.Tensor", ...]
_ROWS = 32  # of a batch, where the network leaves it open
_BATCHES = 8  # at least, where there are examples enough: one in four is held back by reconstruction


@dataclass(frozen=True, slots=True)
class _Input:
    name: str
    sizes: tuple[int | None, ...]  # None is free
    dtype: torch.dtype
    carries: bool  # whether its first dimension counts examples

    def __str__(self) -> str:
        sizes = ["n" if self.carries and axis == 0 else size or "any" for axis, size in enumerate(self.sizes)]
        return f"{self.name} [{', '.join(map(str, sizes))}] {str(self.dtype).removeprefix('torch.')}"


def check_file(path: Path) -> None:
    """Refuse what is no file of arrays by its name; UsageError."""
    if path.suffix not in (".npz", ".npy"):
        hint = "numpy.savez('calibration.npz', INPUT=array), or numpy.save('calibration.npy', array) for one input"
        raise UsageError(f"{path.name}: calibration data is an .npz or .npy file", hint=hint)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")


def load_calibration(path: Path, captured: Prunable) -> list[Batch]:
    """Batches of the network's inputs, in the file's order and in memory; tried once on the network.

    An .npz file has one array per input under its name (others are left alone), or a single one. Where the network
    fixes its batch, an incomplete last one is left out. Floats and integers take the network's width; integers for
    floats, other shapes, values that are not finite and pickles are refused: UsageError.
    """
    import torch

    from edgeprune.graph.capture import evaluation

    check_file(path)
    inputs = _inputs(captured)
    arrays = _named(path, _arrays(path), inputs)
    tensors = [_tensor(path, arrays[entry.name], entry) for entry in inputs]
    batches = _batches(path, tensors, inputs, captured)
    number = 0
    try:
        with evaluation(captured.module), torch.no_grad():
            for number, batch in enumerate(batches):  # noqa: B007  the message names it
                captured.module(*batch)
    except (RuntimeError, IndexError, ValueError) as error:
        raise UsageError(
            f"{path}: the network cannot be computed on batch {number}: {error}",
            hint="give examples as the network takes them: " + ", ".join(map(str, inputs)),
        ) from error
    return batches


def _inputs(captured: Prunable) -> list[_Input]:
    from torch.fx.experimental.symbolic_shapes import is_concrete_int

    nodes = [node for node in captured.module.graph.nodes if node.op == "placeholder"]
    names = captured.input_names or tuple(node.name for node in nodes)
    first = captured.example_inputs[0]
    found = []
    for name, node, example in zip(names, nodes, captured.example_inputs, strict=True):
        sizes = tuple(int(size) if is_concrete_int(size) else None for size in node.meta["val"].shape)
        if captured.batch_dynamic:
            carries = bool(sizes) and sizes[0] is None
        else:
            carries = bool(example.dim() and first.dim()) and example.shape[0] == first.shape[0]
        found.append(_Input(name, sizes, example.dtype, carries))
    return found


def _arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    hint = "write it with numpy.savez or numpy.save, arrays of numbers only"
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a readable file of arrays: {error}", hint=hint) from error


def _named(
    path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], inputs: list[_Input]
) -> Mapping[str, np.ndarray[Any, Any]]:
    if len(arrays) == len(inputs) == 1:
        return {inputs[0].name: next(iter(arrays.values()))}
    missing = [entry.name for entry in inputs if entry.name not in arrays]
    if missing:
        has = f"arrays {', '.join(arrays)}" if path.suffix == ".npz" else "one array"
        raise UsageError(
            f"{path}: no array for the input {', '.join(missing)}; the file has {has}",
            hint="save one array per input under its name: "
            f"numpy.savez('calibration.npz', **{{{', '.join(f'{entry.name!r}: …' for entry in inputs)}}})",
        )
    return arrays


def _tensor(path: Path, array: np.ndarray[Any, Any], entry: _Input) -> torch.Tensor:
    import torch

    hint = f"the network takes {entry}, n examples" if entry.carries else f"the network takes {entry}"
    if len(array.shape) != len(entry.sizes) or any(
        size not in (None, given) and not (entry.carries and axis == 0)
        for axis, (size, given) in enumerate(zip(entry.sizes, array.shape, strict=True))
    ):
        raise UsageError(f"{path}: the array for {entry.name} has the shape {list(array.shape)}", hint=hint)
    try:
        given = torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: the array for {entry.name} is of type {array.dtype}", hint=hint) from error
    if (given.is_floating_point(), given.is_complex()) != (entry.dtype.is_floating_point, entry.dtype.is_complex):
        raise UsageError(
            f"{path}: the array for {entry.name} is of type {array.dtype}",
            hint=f"{hint}: convert the array, normalised as the network was trained",
        )
    tensor = given.to(entry.dtype)
    if not tensor.is_floating_point() and not np.array_equal(tensor.numpy(), array):
        raise UsageError(f"{path}: values for {entry.name} do not fit into {entry.dtype}", hint=hint)
    if not bool(torch.isfinite(tensor).all()):
        raise UsageError(f"{path}: the array for {entry.name} has values that are not finite", hint="leave them out")
    return tensor


def _batches(path: Path, tensors: list[torch.Tensor], inputs: list[_Input], captured: Prunable) -> list[Batch]:
    counts = {entry.name: len(x) for x, entry in zip(tensors, inputs, strict=True) if entry.carries}
    if not counts:
        return [tuple(tensors)]
    if len(set(counts.values())) > 1:
        raise UsageError(
            f"{path}: different numbers of examples: {', '.join(f'{name} {n}' for name, n in counts.items())}",
            hint="give every example all inputs",
        )
    count = next(iter(counts.values()))
    if captured.batch_dynamic:
        rows = max(1, min(_ROWS, count // _BATCHES))
        starts = range(0, count, rows)
    else:
        rows = int(captured.example_inputs[0].shape[0])
        starts = range(0, count - rows + 1, rows)
    if not starts:
        needed = f", and the network takes {rows} at a time" if count else ""
        raise UsageError(f"{path} has {count} examples{needed}", hint="give some hundred")
    return [
        tuple(x[start : start + rows] if entry.carries else x for x, entry in zip(tensors, inputs, strict=True))
        for start in starts
    ]
