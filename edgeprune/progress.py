"""How long operations say where they are. The CLI draws it; libraries and tests use `SILENT`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["SILENT", "Progress", "Step"]


class Step(Protocol):
    """One running operation."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """`amount` of the total is done; `note` is a short live figure ("loss 0.31")."""


class Progress(Protocol):
    """Where progress goes."""

    def step(self, description: str, total: int | None = None) -> AbstractContextManager[Step]:
        """An operation of `total` parts (None: unknown) that lasts as long as the context."""

    def say(self, message: str) -> None:
        """One finished line worth keeping ("trial 3: 0.41 ms, 96.2 %")."""


class _Silent:
    @contextmanager
    def step(self, description: str, total: int | None = None) -> Iterator[Step]:  # noqa: ARG002
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Nothing to draw."""

    def say(self, message: str) -> None:
        """Nobody to tell."""


SILENT: Progress = _Silent()
