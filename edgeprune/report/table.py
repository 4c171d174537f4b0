"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, but for the last one of a row."""
    columns = max(len(row) for row in rows)
    spread = [max((len(row[i]) for row in rows if i < len(row) - 1), default=0) for i in range(columns)]
    return ["  ".join(cell.ljust(spread[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
