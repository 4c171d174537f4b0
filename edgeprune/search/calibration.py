"""Cost models recalibrated from whole-model measurements: a non-negative ridge per class of operators.

The weights of a model's classes and its offset are moved from what was assumed towards what was measured, in relative
terms: minimise sum ((predicted - measured) / (measured sd))^2 + sum ((weight / assumed - 1) / spread)^2 with weights
>= 0 (Hoerl and Kennard 1970; solved by non-negative least squares, Lawson and Hanson 1974). What was measured far from
the limit counts less, and an outlier no more than its size (Huber's weights).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeprune.records.candidate import Candidate
from edgeprune.search.costs import MetricModel

__all__ = ["calibrated", "residual_margin"]

_SPREAD = 0.25  # of a class's weight around what was assumed, relative
_NOISE = 0.004  # of a measurement, and of what no weight explains, relative
_DISTANCE = 0.06  # how much the error grows per unit of the logarithm of measured over limit
_HUBER = 2.5  # standard deviations from which on a measurement is an outlier
_ROUNDS = 5  # of reweighting
_SMALLEST_SHARE = 0.02  # the scale of a weight that was assumed to be 0, of a dense model's figure
_QUANTILE = 0.8  # of the residuals, that the margin covers


def calibrated(metric: MetricModel, seen: Sequence[tuple[Candidate, float]], limit: float) -> MetricModel:
    """The model with weights and an offset that fit what was measured; `limit` is where it must be right."""
    if not seen:
        return metric
    from scipy.optimize import nnls

    found = [metric.by_kind(candidate) for candidate, _ in seen]
    kinds = sorted({kind for entry in found for kind, value in entry.items() if value})  # of others nothing was seen
    table = np.asarray([[entry.get(kind, 0.0) for kind in kinds] + [1.0] for entry in found])
    values = np.asarray([value for _, value in seen])
    assumed = np.asarray([metric.weights.get(kind, 1.0) for kind in kinds] + [metric.offset])
    # In units of what was assumed; of what was assumed to be nothing, in units of a small share of the figure.
    smallest = _SMALLEST_SHARE * values.max() / table.max(axis=0)
    scales = np.where(assumed > 0, assumed, smallest)
    start = assumed / scales
    errors = np.hypot(_NOISE, _DISTANCE * np.log(np.maximum(values, 1e-300) / limit)) if limit > 0 else _NOISE
    errors = np.broadcast_to(errors, values.shape) * values
    prior = np.eye(len(scales)) / _SPREAD
    trust = np.ones(len(values))
    fitted = start
    for _ in range(_ROUNDS):
        rows = (np.sqrt(trust) / errors)[:, None] * (table * scales)
        fitted, _ = nnls(np.vstack([rows, prior]), np.concatenate([np.sqrt(trust) * values / errors, start / _SPREAD]))
        residuals = np.abs(table @ (fitted * scales) - values) / errors
        trust = np.minimum(1.0, _HUBER / np.maximum(residuals, 1e-12))
    weights = fitted * scales
    return replace(
        metric,
        weights={**metric.weights, **dict(zip(kinds, map(float, weights[:-1]), strict=True))},
        offset=float(weights[-1]),
    )


def residual_margin(metric: MetricModel, seen: Sequence[tuple[Candidate, float]], limit: float) -> float:
    """The share by which a figure may well exceed what a calibrated model says of it, from those near the limit."""
    near = [
        value / metric.predict(candidate) - 1
        for candidate, value in seen
        if abs(math.log(value / limit)) < math.log(1.5)
    ]
    residuals: NDArray[np.float64] = np.abs(np.asarray(near))
    return float(np.quantile(residuals, _QUANTILE)) if len(near) > 1 else metric.margin
