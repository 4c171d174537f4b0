"""How large the arena of a model is in which tensors take turns in memory: the plan that TFLite Micro makes.

Source: `GreedyMemoryPlanner` of TensorFlow Lite Micro. The largest tensors are placed first, each at the lowest place
where it is in nobody's way as long as it lives.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["planned_bytes"]

_ALIGNMENT = 16  # bytes: where every tensor begins


def planned_bytes(lifetimes: Sequence[tuple[int, int, int]]) -> int:
    """Bytes of the plan for tensors of (bytes, first step, last step), both of which they live in.

    What the runtime needs beside them is not in it: scratch memory of single operators, and its own records.
    """
    placed: list[tuple[int, int, int, int]] = []  # begin, end, first, last; in the order of begin
    aligned = [(-(-size // _ALIGNMENT) * _ALIGNMENT, first, last) for size, first, last in lifetimes]
    for size, first, last in sorted(aligned, key=lambda tensor: tensor[0])[::-1]:  # of equals the last first
        begin = 0
        for other, end, others_first, others_last in placed:
            if others_first > last or others_last < first:
                continue
            if other - begin >= size:
                break
            begin = max(begin, end)
        placed.append((begin, begin + size, first, last))
        placed.sort()
    return max((end for _, end, _, _ in placed), default=0)
