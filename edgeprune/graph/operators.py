"""Operators of a captured graph: their names, the names of their arguments, the concrete shapes of their values."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch.fx import Node

__all__ = [
    "FILLS",
    "SYMBOLIC",
    "argument_names",
    "at_batch",
    "concrete",
    "formal_arguments",
    "is_operator",
    "is_written",
    "layer_of",
    "operator_name",
    "schema_of",
    "shape_of",
    "sizes_of",
]

# They make a tensor of a given size that is the same, or equally random, everywhere.
FILLS = ("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "rand", "randn")


SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)  # a tuple: unions are made anew at each call


def is_operator(node: Node) -> bool:
    """Whether the node calls an ATen (or other registered) operator, and not a Python function or a region."""
    return isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001  torch.ops' own class has no public name


def schema_of(node: Node) -> Any:
    """The operator's schema."""
    return cast("Any", node.target)._schema  # noqa: SLF001  likewise


def argument_names(node: Node) -> tuple[str, ...]:
    """The names of the operator's arguments, in order."""
    return _names(node.target)


@functools.cache
def _names(target: Any) -> tuple[str, ...]:
    return tuple(name for name, _ in formal_arguments(target))


@functools.cache
def formal_arguments(target: Any) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """The names of an operator's arguments, each with its default value, or nothing where it has none."""
    return tuple(
        (formal.name, (formal.default_value,) if formal.has_default_value() else ())
        for formal in target._schema.arguments  # noqa: SLF001  torch.ops' own class has no public name
    )


def operator_name(node: Node | None) -> str:
    """ "conv2d" of `aten.conv2d.default`; the plain name of anything else."""
    if node is None:
        return ""
    return _name(node.target)


@functools.cache
def _name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001  as in is_operator
        return str(target._schema.name).partition("::")[2]  # noqa: SLF001
    return str(getattr(target, "__name__", target))


_BATCH: ContextVar[int | None] = ContextVar("_BATCH", default=None)


@contextmanager
def at_batch(rows: int | None) -> Iterator[None]:
    """Within it, `concrete` and `shape_of` give the sizes that a dynamic batch of so many rows leads to."""
    token = _BATCH.set(rows)
    try:
        yield
    finally:
        _BATCH.reset(token)


def concrete(value: object) -> Any:
    """A symbolic size as the integer that it had at capture, or has `at_batch`."""
    if isinstance(value, SYMBOLIC):
        rows = _BATCH.get()
        return value.node.hint if rows is None else _evaluated(value.node.expr, value.node.pytype, rows)
    return value


@functools.lru_cache(maxsize=4096)
def _evaluated(expression: Any, kind: type, rows: int) -> Any:
    """A symbolic expression whose only variable is the batch."""
    return kind(expression.subs(dict.fromkeys(expression.free_symbols, rows)))


def sizes_of(value: Any) -> tuple[Any, ...]:
    """The sizes of a (fake) tensor, symbolic where the batch takes part; surgery notes them on what it makes."""
    noted: tuple[Any, ...] | None = getattr(value, "sizes", None)
    return tuple(value.shape) if noted is None else noted


def shape_of(value: Any) -> tuple[int, ...]:
    """The concrete shape of a (fake) tensor."""
    return tuple([size if type(size) is int else int(concrete(size)) for size in sizes_of(value)])


def layer_of(node: Node) -> str:
    """The dotted path of the module whose forward made the node; "" is the model's own, or not known."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).removeprefix("L['self']").lstrip(".") if stack else ""


def is_written(node: Node) -> bool:
    """Whether an in-place operator changes the node's value, or a view of it."""
    for user in node.users:
        if user.op != "call_function" or not is_operator(user):
            continue
        schema = schema_of(user)
        for given, formal in zip(user.args, schema.arguments, strict=False):
            if given is node and formal.alias_info is not None and (formal.alias_info.is_write or is_written(user)):
                return True
    return False
