"""Where an operator of two widths is timed, and what it costs between those places.

Latency over a width is a staircase, so that a straight line between two widths is off by a stair. The staircases of
both widths multiply: a few lines that are timed at every width tell them, and what these leave is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

__all__ = ["aligned", "everywhere", "filled", "interpolated", "on_lines", "spread"]

_LINES = 3  # per axis: both ends, and one between them
_LEAST = 0.005  # of the largest time: below it is noise, and no ratio of it means anything
_BEYOND = 1.5  # what is told by lines is at most so much more, or less, than what the nearest of them have


def spread(widths: tuple[int, ...], most: int) -> tuple[int, ...]:
    """At most so many of the widths, evenly, both ends among them."""
    if len(widths) <= most:
        return widths
    places = np.unique(np.linspace(0, len(widths) - 1, most).round().astype(int))
    return tuple(widths[place] for place in places)


def aligned(widths: tuple[int, ...], most: int) -> tuple[int, ...]:
    """As `spread`, but for the most aligned width near each place: kernels' knees lie at multiples of powers of two."""
    if len(widths) <= most:
        return widths
    last = len(widths) - 1
    half = last / (most - 1) / 2
    kept = {0, last}
    for index in range(1, most - 1):
        middle = index * last / (most - 1)
        near = range(math.ceil(middle - half), math.ceil(middle + half))
        kept.add(max(near, key=lambda place: (widths[place] & -widths[place], -abs(place - middle))))
    return tuple(widths[place] for place in sorted(kept))


def everywhere(grid: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """All places of the grid."""
    return tuple(product(*grid))


def on_lines(grid: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """The places of the grid in which an axis has one of its few chosen widths; all those of a single axis."""
    if len(grid) < 2:
        return everywhere(grid)
    chosen = [set(aligned(axis, _LINES)) for axis in grid]
    return tuple(
        place for place in everywhere(grid) if any(width in lines for width, lines in zip(place, chosen, strict=True))
    )


def filled(values: NDArray[np.float64], grid: Sequence[tuple[int, ...]]) -> NDArray[np.float64] | None:
    """`values` (one or two axes, from 0 up) with what is NaN told by the lines that are known as a whole.

    Their logarithms are blended between the lines (Coons 1967, "Surfaces for computer-aided design of space forms"),
    which is exact where both widths' staircases multiply. What is told stays near what the nearest lines have. None
    where an end of an axis is not known as a whole.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    if values.ndim != 2:
        return None
    rows, columns = (np.flatnonzero(~missing.any(axis=axis)) for axis in (1, 0))
    if any(not {0, size - 1} <= set(lines) for lines, size in zip((rows, columns), values.shape, strict=True)):
        return None
    least = _LEAST * float(np.nanmax(values)) or 1.0
    logarithms = np.log(values + least)
    narrow, wide = np.asarray(grid[0])[rows], np.asarray(grid[1])[columns]
    along = _along(logarithms[rows], narrow, grid[0], axis=0)
    across = _along(logarithms[:, columns], wide, grid[1], axis=1)
    both = _along(along[:, columns], wide, grid[1], axis=1)
    (below, above), (left, right) = (
        _nearest(lines, size) for lines, size in zip((rows, columns), values.shape, strict=True)
    )
    near = np.stack([values[below], values[above], values[:, left], values[:, right]])
    told = np.clip(np.exp(along + across - both) - least, near.min(axis=0) / _BEYOND, near.max(axis=0) * _BEYOND)
    return np.where(missing, told, values)


def interpolated(
    values: NDArray[np.float64], grid: Sequence[tuple[int, ...]], axes: Sequence[tuple[int, ...]]
) -> NDArray[np.float64]:
    """Linear along each axis in turn, from the widths of `grid` to those of `axes`."""
    for axis, (known, wished) in enumerate(zip(grid, axes, strict=True)):
        if known != wished:
            values = _along(values, known, wished, axis)
    return values


def _along(
    values: NDArray[np.float64], known: Sequence[int] | NDArray[np.int64], wished: Sequence[int], axis: int
) -> NDArray[np.float64]:
    return np.apply_along_axis(lambda line: np.interp(wished, known, line), axis, values)


def _nearest(lines: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each place of an axis the line at or before it, and the one at or after it."""
    places = np.arange(size)
    return lines[np.searchsorted(lines, places, side="right") - 1], lines[np.searchsorted(lines, places)]
