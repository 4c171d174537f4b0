"""A score per single weight: magnitude, LAMP, Wanda. Higher stays longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule

from edgeprune.errors import UsageError
from edgeprune.graph.constants import attribute
from edgeprune.importance.activation import input_norms
from edgeprune.sparsity.patterns import Scope
from edgeprune.sparsity.weights import Weight
from edgeprune.training_data import ImportanceContext

__all__ = ["CRITERIA", "Criterion", "default_scope", "score"]

Criterion = Literal["magnitude", "lamp", "wanda"]
CRITERIA: tuple[Criterion, ...] = ("magnitude", "lamp", "wanda")
Scores = dict[str, NDArray[np.float64]]


def default_scope(criterion: Criterion) -> Scope:
    """LAMP is made to be compared over the whole network, Wanda within the row of each output."""
    scopes: dict[Criterion, Scope] = {"magnitude": "layer", "lamp": "global", "wanda": "row"}
    return scopes[criterion]


def score(module: GraphModule, weights: Sequence[Weight], criterion: Criterion, context: ImportanceContext) -> Scores:
    """Per weight an array (outputs, taps, inputs), the same bit for bit on any number of threads.

    "magnitude": |w| (Han et al. 2015, arXiv:1506.02626). "lamp": w² over the sum of the squares in its layer that are
    not smaller (Lee et al. 2021, arXiv:2010.07611, equation 1). "wanda": |w| · ‖x‖ of the input that it multiplies,
    over the context's batches (Sun et al. 2024, arXiv:2306.11695, equation 1); inputs of other operators than
    convolutions and linear layers are not seen, there it is the magnitude. Raises UsageError, TaskError.
    """
    if criterion not in CRITERIA:
        raise UsageError(f"there is no criterion {criterion!r} for weights", hint=f"one of {', '.join(CRITERIA)}")
    values = {weight.name: np.abs(weight.matrix(_array(module, weight.name))) for weight in weights}
    if criterion == "lamp":
        return {name: _lamp(magnitudes) for name, magnitudes in values.items()}
    if criterion == "wanda":
        norms = input_norms(module, [weight.name for weight in weights], context)
        return {name: _wanda(magnitudes, norms.get(name)) for name, magnitudes in values.items()}
    return values


def _array(module: GraphModule, name: str) -> NDArray[np.float64]:
    tensor: torch.Tensor = attribute(module, name)
    return np.asarray(tensor.detach().cpu().double().numpy())


def _lamp(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = magnitudes.ravel() ** 2
    order = np.argsort(squares, kind="stable")
    not_smaller = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros_like(squares)
    np.divide(squares[order], not_smaller, out=scores[: len(order)], where=not_smaller > 0)
    result = np.empty_like(scores)
    result[order] = scores
    return result.reshape(magnitudes.shape)


def _wanda(magnitudes: NDArray[np.float64], norms: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if norms is None:
        return magnitudes
    outputs, _, inputs = magnitudes.shape
    per_group = norms.reshape(-1, inputs)  # of a grouped convolution each group has its own inputs
    return magnitudes * np.repeat(per_group, outputs // len(per_group), axis=0)[:, None, :]
