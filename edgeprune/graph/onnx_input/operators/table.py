"""The table of ONNX operators: per name the function that computes it with torch, and what such a function is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.errors import CaptureError

__all__ = ["HOST_INPUTS", "OPERATORS", "Host", "Operator", "Value", "as_tensor", "integers", "operator"]

# A value is a tensor, or a host array: a constant or a shape. Where it holds the symbolic batch its dtype is object.
Host = NDArray[Any]
Value = torch.Tensor | Host | None


@dataclass(frozen=True, slots=True)
class Operator:
    """A node of the file: the operator `kind` in its version `opset`, with its attributes."""

    kind: str
    name: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def get(self, attribute: str, default: Any = None) -> Any:
        """The attribute, or the standard's default."""
        return self.attributes.get(attribute, default)

    def refuse(self, why: str, hint: str = "export the model without it, or capture the PyTorch model") -> CaptureError:
        """The error that this node cannot be captured."""
        return CaptureError(f"ONNX operator {self.kind} (node {self.name!r}, opset {self.opset}): {why}", hint=hint)


Compute = Callable[..., Any]
_Function = TypeVar("_Function", bound=Compute)

OPERATORS: dict[str, Compute] = {}
HOST_INPUTS: dict[str, frozenset[int]] = {}  # inputs that are read while the graph is built: shapes, axes, bounds


def operator(*kinds: str, host: Sequence[int] = ()) -> Callable[[_Function], _Function]:
    """Enter a function `f(operator, *values)` into the table; the inputs `host` come as host arrays."""

    def enter(function: _Function) -> _Function:
        for kind in kinds:
            OPERATORS[kind] = function
            HOST_INPUTS[kind] = frozenset(host)
        return function

    return enter


def as_tensor(value: Value) -> torch.Tensor:
    """A host array as a tensor."""
    if isinstance(value, torch.Tensor):
        return value
    array = np.asarray(value)
    if array.dtype == object:
        raise CaptureError("a shape with a dynamic batch is used as data")
    return torch.from_numpy(np.array(array, order="C"))  # a copy: constants of a file are read-only


def integers(value: Value) -> list[Any]:
    """A host array as a list of integers; one of them may be the symbolic batch."""
    return list(np.asarray(value).reshape(-1).tolist())
