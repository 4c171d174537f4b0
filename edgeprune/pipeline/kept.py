"""What a run works out once and keeps in its folder, so that a resumed one sees the very same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgeprune import atomic
from edgeprune.errors import DamagedError

__all__ = ["keep", "read_kept"]

T = TypeVar("T")


def keep(path: Path, schema: str, **content: Any) -> None:
    """Write the content under its schema; raises StorageError."""
    atomic.write_text(path, json.dumps({"schema": schema, **content}, allow_nan=False) + "\n")


def read_kept(path: Path, schema: str, what: str, parse: Callable[[Any], T]) -> T:
    """What `parse` makes of the content; raises DamagedError where it is not that of the schema."""
    hint = "start a new run in another folder"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != schema:
            raise DamagedError(f"{path}: unknown schema {data['schema']!r}", hint=hint)
        return parse(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: cannot read the {what}: {error}", hint=hint) from error
