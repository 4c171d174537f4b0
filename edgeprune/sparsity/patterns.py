"""Patterns of sparsity: which weights of a layer may be zero together.

A weight is seen as (outputs, taps, inputs): a convolution's kernel positions are its taps, a linear layer has one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import UsageError

__all__ = ["Blocks", "Masks", "NOfM", "Pattern", "Scope", "masks", "parse"]

Scores = Mapping[str, NDArray[np.float64]]  # per weight, (outputs, taps, inputs)
Masks = dict[str, NDArray[np.bool_]]  # of the same shapes; True stays
Scope = Literal["layer", "global", "row"]


@dataclass(frozen=True, slots=True)
class NOfM:
    """Of every M neighbouring inputs, at each output and tap, N stay. What is left over at the end stays dense."""

    n: int
    m: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of `outputs` × `inputs` at one tap go together; at the edges they are smaller. 1 × 1: unstructured."""

    outputs: int = 1
    inputs: int = 1


Pattern = NOfM | Blocks


def parse(text: str) -> Pattern:
    """ "unstructured", "2:4", "block 1x4" or "1x4" (outputs × inputs); raises UsageError."""
    wanted = text.strip().lower()
    if wanted == "unstructured":
        return Blocks()
    if found := re.fullmatch(r"(\d+):(\d+)", wanted):
        n, m = int(found[1]), int(found[2])
        if 0 < n < m:
            return NOfM(n, m)
    if found := re.fullmatch(r"(?:block\s+)?(\d+)\s*[x×]\s*(\d+)", wanted):
        outputs, inputs = int(found[1]), int(found[2])
        if outputs and inputs:
            return Blocks(outputs, inputs)
    raise UsageError(
        f"{text!r} is no pattern of sparsity",
        hint='"unstructured", "2:4" (two of every four inputs stay), or "block 1x4" (outputs × inputs)',
    )


def masks(scores: Scores, pattern: Pattern, ratio: float, scope: Scope) -> Masks:
    """What stays: of N:M the N of the highest score, else all but the share `ratio` of the lowest.

    Blocks are ranked by their mean score within their "layer", among all ("global"), or within the "row" of each
    output; ties go by position. At least one block of every layer (row) stays.
    """
    if isinstance(pattern, NOfM):
        return {name: _of_m(values, pattern) for name, values in scores.items()}
    means, sizes = {}, {}
    for name, values in scores.items():
        sizes[name] = _block_sums(np.ones_like(values), pattern)
        means[name] = _block_sums(values, pattern) / sizes[name]
    if scope == "global":
        kept = _global(means, sizes, ratio)
    elif scope == "row":
        kept = {
            name: np.stack([_kept(row, size, ratio) for row, size in zip(means[name], sizes[name], strict=True)])
            for name in means
        }
    else:
        kept = {name: _kept(means[name], sizes[name], ratio) for name in means}
    return {name: _spread(kept[name], scores[name].shape, pattern) for name in scores}


def _of_m(values: NDArray[np.float64], pattern: NOfM) -> NDArray[np.bool_]:
    outputs, taps, inputs = values.shape
    whole = inputs // pattern.m * pattern.m
    groups = values[:, :, :whole].reshape(outputs, taps, -1, pattern.m)
    rank = np.argsort(np.argsort(-groups, axis=-1, kind="stable"), axis=-1, kind="stable")
    mask = np.ones(values.shape, np.bool_)
    mask[:, :, :whole] = (rank < pattern.n).reshape(outputs, taps, whole)
    return mask


def _block_sums(values: NDArray[np.float64], pattern: Blocks) -> NDArray[np.float64]:
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], pattern.outputs), axis=0)
    return np.asarray(np.add.reduceat(rows, np.arange(0, values.shape[2], pattern.inputs), axis=2))


def _kept(means: NDArray[np.float64], sizes: NDArray[np.float64], ratio: float) -> NDArray[np.bool_]:
    order = np.argsort(means, axis=None, kind="stable")
    gone = np.cumsum(sizes.ravel()[order]) <= ratio * sizes.sum() * (1 + 1e-12)
    gone[-1] = False
    kept = np.ones(means.size, np.bool_)
    kept[order[gone]] = False
    return kept.reshape(means.shape)


def _global(means: Scores, sizes: Scores, ratio: float) -> Masks:
    flat = _kept(
        np.concatenate([means[name].ravel() for name in means]),
        np.concatenate([sizes[name].ravel() for name in means]),
        ratio,
    )
    ends = np.cumsum([means[name].size for name in means])
    kept = {
        name: part.reshape(means[name].shape).copy()
        for name, part in zip(means, np.split(flat, ends[:-1]), strict=True)
    }
    for name, part in kept.items():
        if not part.any():
            part.flat[int(np.argmax(means[name]))] = True
    return kept


def _spread(kept: NDArray[np.bool_], shape: tuple[int, ...], pattern: Blocks) -> NDArray[np.bool_]:
    rows = np.repeat(kept, pattern.outputs, axis=0)[: shape[0]]
    return np.ascontiguousarray(np.repeat(rows, pattern.inputs, axis=2)[:, :, : shape[2]])
