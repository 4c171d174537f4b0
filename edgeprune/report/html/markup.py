"""Markup that cannot be broken out of: whatever is not markup already is text, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

__all__ = ["Child", "Html", "join", "tag"]


class Html(str):
    """Markup. Anything else that is put into markup is text."""

    __slots__ = ()


Child = str | int | Iterable["Child"] | None
Value = str | int | float | bool | None

_VOID = frozenset({"meta", "input", "br"})


def tag(name: str, /, *children: Child, **attributes: Value) -> Html:
    """An element. Of an attribute's name a last "_" is cut and others are "-"; None and False leave it out."""
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """The children one after the other; sequences of children are taken apart."""
    return Html("".join(_child(child) for child in children))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return html.escape(child)
    if isinstance(child, int):
        return str(child)
    return join(*child)


def _attribute(key: str, value: Value) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(text)}"'
