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


def filled(values: NDArray[np.float64], grid: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
    """`values` (one or two axes, from 0 up) with what is NaN, off the lines of `on_lines`, told by the lines.

    It is the product of the two outermost lines, times the ratio to it, which is known on the lines and blended between
    them (Coons 1967, "Surfaces for computer-aided design of space forms").
    """
    if not np.isnan(values).any():
        return values
    least = 1e-4 * float(np.nanmax(values)) or 1.0  # an operator may cost nothing measurable
    raised = values + least
    outermost = np.outer(raised[:, -1], raised[-1]) / raised[-1, -1]
    ratio = raised / outermost
    rows, columns = (np.flatnonzero(~np.isnan(values).any(axis=axis)) for axis in (1, 0))
    narrow, wide = (np.asarray(grid[0])[rows], np.asarray(grid[1])[columns])
    along = _along(ratio[rows], narrow, grid[0], axis=0)
    across = _along(ratio[:, columns], wide, grid[1], axis=1)
    both = _along(along[:, columns], wide, grid[1], axis=1)
    told = np.maximum(outermost * (along + across - both) - least, 0.0)
    return np.where(np.isnan(values), told, values)


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
