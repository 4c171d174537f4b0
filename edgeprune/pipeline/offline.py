"""No network, enforced: inside `no_network` every attempt to reach one is an error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from edgeprune.errors import UsageError

__all__ = ["no_network"]

_REFUSED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind")
_offline: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def no_network() -> Iterator[None]:
    """Whatever uses Python's sockets in this context, a plug-in for example, raises UsageError."""
    _watch()
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


@cache
def _watch() -> None:
    """Once: an audit hook cannot be taken away again."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _REFUSED and _offline.get():
        raise UsageError(f"--offline, but {event}{arguments[1:]} was called", hint="a plug-in does it: leave it out")
