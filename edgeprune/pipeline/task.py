"""The user's task: model, data, loss and metric as one Python object, and every call to it guarded.

What its user writes (`task.py`, named `task: task.py:Digits` in the project file):

    class Digits:
        def model(self) -> nn.Module: ...                 # trained
        def example_inputs(self) -> tuple[Tensor, ...]: ...  # one batch of inputs, as the model is called with
        def evaluate(self, model) -> float: ...           # 0..1, higher is better
        def train_batches(self) -> Iterable: ...          # optional, with loss: one epoch
        def loss(self, model, batch) -> Tensor: ...       # optional: calls the model, returns a scalar

The optional two enable batch-norm re-estimation, fine-tuning and the importances that need data.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeprune.errors import EdgepruneError, TaskError
from edgeprune.pipeline.task_module import import_object, near_name, on_path, source_line, user_frame
from edgeprune.pipeline.task_sources import source_digests

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["CheckedTask", "Task", "check_task", "load_task"]

_REQUIRED = {
    "model": "model(self) -> nn.Module: the trained network",
    "example_inputs": "example_inputs(self) -> tuple[Tensor, ...]: one batch of inputs",
    "evaluate": "evaluate(self, model) -> float: the metric, between 0 and 1, higher is better",
}
_OPTIONAL = {
    "train_batches": "train_batches(self) -> Iterable: the batches of one epoch",
    "loss": "loss(self, model, batch) -> Tensor: calls the model on the batch, returns a scalar",
}
_PARTS = {**_REQUIRED, **_OPTIONAL}


class Task(Protocol):
    """What every task has. Two more parts are optional and go together: `train_batches()` and `loss(model, batch)`."""

    def model(self) -> nn.Module:
        """The trained network. Called once in a process; a resumed run expects the same weights again."""

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """One batch of inputs as the model is called with; the first dimension of each is the batch."""

    def evaluate(self, model: nn.Module) -> float:
        """The metric of a model on the data that decides: between 0 and 1, higher is better."""


def load_task(reference: str, base_dir: Path | str = ".") -> CheckedTask:
    """The task that "task.py:Digits" or "package.module:Digits" names, relative to `base_dir`.

    A class or function is called without arguments, any other object is taken as it is. Raises TaskError.
    """
    base = Path(base_dir).resolve()
    thing, file = import_object(reference, base)
    folder = base if file is None else file.parent
    if inspect.isclass(thing) or inspect.isroutine(thing):
        with _guard(f"{reference}()", folder), on_path(folder):
            thing = thing()
    return check_task(thing, reference, folder, file)


def check_task(task: Any, name: str | None = None, folder: Path | None = None, file: Path | None = None) -> CheckedTask:
    """Wrap a task object, after a look at whether its parts are there and callable; raises TaskError.

    `file` is the one that the task is written in, where it is not that of its class.
    """
    file = file or _file_of(task)
    folder = folder or (Path.cwd() if file is None else file.parent)
    checked = CheckedTask(task, name or type(task).__name__, folder, file)
    missing = [part for part in _REQUIRED if not checked.has(part)]
    if missing:
        raise checked.lacks(missing[0])
    for part in _OPTIONAL:
        # A misspelt optional part would otherwise silently turn fine-tuning off.
        if not checked.has(part) and near_name(part, _public_names(task) - set(_PARTS)):
            raise checked.lacks(part)
    present = [part for part in _OPTIONAL if checked.has(part)]
    if len(present) == 1:
        absent = next(part for part in _OPTIONAL if part not in present)
        raise TaskError(
            f"{checked.name} has {present[0]}() but no {absent}(): they only work together{checked.where()}",
            hint=f"add {_PARTS[absent]}; or remove {present[0]}() to go without fine-tuning",
        )
    return checked


class CheckedTask:
    """A task whose every part is guarded: what it raises or wrongly returns becomes a TaskError that says where."""

    def __init__(self, task: Any, name: str, folder: Path, file: Path | None = None) -> None:
        self._task = task
        self.name = name
        self.folder = folder
        self._file = file

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of the files that the task is written in; none where it was typed into an interpreter."""
        return {} if self._file is None else source_digests(self._file)

    def has(self, part: str) -> bool:
        """Whether the task has the part ("loss")."""
        return callable(getattr(self._task, part, None))

    @property
    def trainable(self) -> bool:
        """Whether the task has what fine-tuning needs: `train_batches` and `loss`."""
        return all(self.has(part) for part in _OPTIONAL)

    def model(self) -> nn.Module:
        """The user's network; raises TaskError."""
        from torch import nn

        model = self._call("model")
        if not isinstance(model, nn.Module):
            hint = "return the network itself (a torch.nn.Module)"
            if isinstance(model, dict):
                hint = "that looks like a state dict: load_state_dict() it into a network, and return the network"
            elif inspect.isclass(model):
                hint = "return an instance of the class, not the class"
            raise self._returned("model", model, "not a torch.nn.Module", hint)
        return model

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """The inputs of one call, as a tuple; a single tensor is accepted. Raises TaskError."""
        import torch

        inputs = self._call("example_inputs")
        if isinstance(inputs, torch.Tensor):
            inputs = (inputs,)
        if not isinstance(inputs, (tuple, list)) or not inputs or not all(isinstance(i, torch.Tensor) for i in inputs):
            hint = "return a tuple with one tensor per argument of the model's forward()"
            raise self._returned("example_inputs", inputs, "not a tuple of tensors", hint)
        for index, tensor in enumerate(inputs):
            if tensor.ndim == 0 or tensor.shape[0] == 0:
                hint = "the first dimension of every input is the batch: at least one example"
                raise self._returned("example_inputs", tensor, f"whose input {index} has no batch", hint)
        return tuple(inputs)

    def evaluate(self, model: nn.Module) -> float:
        """The metric, between 0 and 1; raises TaskError for anything else, NaN included."""
        import torch

        metric = self._call("evaluate", model)
        if isinstance(metric, torch.Tensor):
            raise self._returned("evaluate", metric, "not a float", "end it with .item()")
        if isinstance(metric, bool) or not isinstance(metric, numbers.Real):
            raise self._returned("evaluate", metric, "not a float", "return one number between 0 and 1")
        value = float(metric)
        if not math.isfinite(value):
            hint = "a metric that is not a number cannot be compared: look for a division by zero or an empty test set"
            raise self._returned("evaluate", value, "not a finite number", hint)
        if not 0 <= value <= 1:
            hint = "return a metric between 0 and 1 where higher is better, such as accuracy"
            if 1 < value <= 100:
                hint = "if that is in percent, divide by 100"
            raise self._returned("evaluate", value, "not between 0 and 1", hint)
        return value

    def train_batches(self) -> Iterator[Any]:
        """The batches of one epoch, at least one; raises TaskError."""
        batches = self._call("train_batches")
        if not isinstance(batches, Iterable):
            raise self._returned("train_batches", batches, "which cannot be iterated", "return or yield batches")
        empty = True
        iterator = self._guarded("train_batches", lambda: iter(batches))
        end = object()
        while (batch := self._guarded("train_batches", lambda: next(iterator, end))) is not end:
            empty = False
            yield batch
        if empty:
            raise self._returned(
                "train_batches",
                batches,
                "that gave no batch",
                "every call stands for one epoch: make a new iterator each time, over data that is not empty",
            )

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """The loss of a model on a batch, a scalar tensor; raises TaskError."""
        import torch

        loss = self._call("loss", model, batch)
        if not isinstance(loss, torch.Tensor):
            raise self._returned("loss", loss, "not a tensor", "return the loss as torch computes it, without .item()")
        if loss.numel() != 1:
            hint = "reduce it over the batch: .mean()"
            raise self._returned("loss", loss, f"of shape {tuple(loss.shape)}, not a scalar", hint)
        if torch.is_grad_enabled() and not loss.requires_grad and any(p.requires_grad for p in model.parameters()):
            hint = "call the `model` that is handed in, and do not detach() its output or use torch.no_grad()"
            raise self._returned("loss", loss, "that does not depend on the model's parameters", hint)
        return loss.reshape(())

    def _call(self, part: str, *arguments: Any) -> Any:
        if not self.has(part):
            raise self.lacks(part)
        function = getattr(self._task, part)
        return self._guarded(part, lambda: function(*arguments))

    def _guarded(self, part: str, function: Callable[[], Any]) -> Any:
        with _guard(f"{part}() of {self.name}", self.folder), on_path(self.folder):
            return function()

    def lacks(self, part: str) -> TaskError:
        """The error that the part is missing, with a look at whether it is only misspelt."""
        near = near_name(part, _public_names(self._task) - set(_PARTS))
        asks = f"it has {near!r}: did you mean {part!r}? " if near else ""
        attribute = getattr(self._task, part, None)
        state = f"has no {part}()" if attribute is None else f"has {part!r}, but not as a method"
        return TaskError(f"{self.name} {state}{self.where()}", hint=f"{asks}write {_PARTS[part]}")

    def _returned(self, part: str, value: Any, wrong: str, hint: str) -> TaskError:
        where = self.where(part)
        return TaskError(f"{part}() of {self.name} returned {_short(value)}, {wrong}{where}", hint=hint)

    def where(self, part: str | None = None) -> str:
        """A line of a message that says where the class, or a part of it, is defined."""
        line = source_line(getattr(self._task, part) if part else type(self._task))
        return f"\n  at {line}" if line else ""


class _guard:  # noqa: N801  used like a function
    """Turns what the user's code raises into a TaskError that names the part and the last line of the user's own."""

    def __init__(self, what: str, folder: Path) -> None:
        self._what = what
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception | SystemExit) or isinstance(error, EdgepruneError):
            return
        where = user_frame(error, self._folder)
        message = f"{self._what} raised {type(error).__name__}: {error}" + (f"\n  at {where}" if where else "")
        hint = "this is in the task's own code; -v shows the whole traceback"
        if isinstance(error, ModuleNotFoundError) and error.name:
            hint = f"install the package that provides {error.name!r} into edgeprune's environment"
        raise TaskError(message, hint=hint) from error


def _public_names(task: Any) -> set[str]:
    return {name for name in dir(task) if not name.startswith("_")}


def _file_of(task: Any) -> Path | None:
    try:
        file = Path(inspect.getfile(type(task))).resolve()
    except (OSError, TypeError):  # a class that was typed into an interpreter has no file
        return None
    return file if file.is_file() else None


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if isinstance(value, (int, float, str, type(None))) else f"{type(value).__name__} ({text})"
