"""Latency over width is a staircase, whose steps differ by runtime: they are found in timings, not assumed.

Times are of one operator with one of its dimensions varied, in any one unit. Differences within `noise`, a share, are
taken for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

__all__ = ["NOISE", "alignment", "coarse", "refine", "steps"]

NOISE = 0.03
_MULTIPLES = (16, 8, 4)  # lanes and blocks of kernels: where knees are looked for first
_NEIGHBOURS = 12  # of steps, that are measured in all: spread over the widths they tell the alignment
_ALIGNMENTS = (64, 32, 16, 8, 4, 2)


def steps(times: Mapping[int, float], noise: float = NOISE) -> tuple[int, ...]:
    """The widths worth having, ascending: no wider step is as fast. The widest always is one.

    A width that is not a step is *dominated*: some wider step is not slower beyond noise. Steps are compared with
    steps alone, so that a slope that rises by less than the noise from width to width still keeps some.
    """
    kept: list[int] = []
    for width in sorted(times, reverse=True):
        if not kept or times[kept[-1]] > times[width] * (1 + noise):  # the last kept is the fastest of the kept
            kept.append(width)
    return tuple(reversed(kept))


def coarse(full: int, least: int = 1, most: int = 12) -> tuple[int, ...]:
    """At most about `most` widths from `least` to `full` to begin with: multiples of a power of two, and `full`."""
    unit = 1
    while full // unit > most:
        unit *= 2
    first = -(-max(1, least) // unit) * unit
    return tuple(sorted({*range(first, full + 1, unit), full}))


def refine(times: Mapping[int, float], *, noise: float = NOISE, most: int = 16) -> tuple[int, ...]:
    """At most `most` further widths to measure, ascending; () where the steps are as known as they need be.

    Between two measured widths whose times differ: the multiples of 16, then 8, then 4 there, largest differences
    first. Then neighbours of steps at such a multiple: is one narrower as fast, does one wider cost a stair?
    """
    ordered = sorted(times)
    gaps = [(abs(times[b] / times[a] - 1), a, b) for a, b in pairwise(ordered) if b - a > 1]
    gaps = sorted((gap for gap in gaps if gap[0] > noise), reverse=True)
    wanted: dict[int, None] = {}
    for unit in _MULTIPLES:
        for _, a, b in gaps:
            wanted |= dict.fromkeys(width for width in range(a // unit * unit + unit, b, unit))
    aligned = [width for width in steps(times, noise) if width % _MULTIPLES[-1] == 0]
    near = [other for width in aligned for other in (width - 1, width + 1)]
    near = [other for other in near if ordered[0] < other < ordered[-1] and other not in times]
    left = max(0, _NEIGHBOURS - sum(width % _MULTIPLES[-1] > 0 for width in times))
    wanted |= dict.fromkeys(near[:: max(1, -(-len(near) // left))] if left else ())
    return tuple(sorted(list(wanted)[:most]))


def alignment(times: Mapping[int, float], noise: float = NOISE) -> int | None:
    """The largest multiple that widths can be rounded up to at no cost; 1 where even 2 costs, None where not known.

    No cost: over all measured widths whose rounded one is measured too, at two multiples or more, rounding adds no more
    than the noise on average, and nowhere twice the noise.
    """
    free = True
    for unit in _ALIGNMENTS:
        rounded = {width: -(-width // unit) * unit for width in times if width % unit}
        added = {width: max(0.0, times[up] / times[width] - 1) for width, up in rounded.items() if up in times}
        free = not added or (max(added.values()) <= 2 * noise and sum(added.values()) <= noise * len(added))
        if free and len({rounded[width] for width in added}) > 1:
            return unit
    return None if free else 1
