"""Options that several commands share: JSON output, target and profile, limits of the budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

__all__ = ["as_json", "budget_options", "device_options", "emit", "pool_options", "refuse_empty"]

Function = TypeVar("Function", bound=Callable[..., Any])

as_json = click.option("--json", "json_output", is_flag=True, help="Print the data as JSON on stdout.")


def device_options(function: Function) -> Function:
    """--target and --profile; not given they are None, which leaves it to the project or to the default."""
    for option in (
        click.option("--profile", metavar="NAME|FILE", help="The device profile (`edgeprune device list`)."),
        click.option(
            "--target", metavar="TARGET", help="Where to measure: local, ssh://user@host:port or adb://SERIAL."
        ),
    ):
        function = option(function)
    return function


def pool_options(function: Function) -> Function:
    """--target, any number of times, and --profile; not given, the project says it."""
    for option in (
        click.option("--profile", metavar="NAME|FILE", help="The device profile (`edgeprune device list`)."),
        click.option(
            "--target",
            metavar="TARGET",
            multiple=True,
            help="Where to measure; given several times, on a pool of devices of one kind, judged by the worst.",
        ),
    ):
        function = option(function)
    return function


def budget_options(function: Function) -> Function:
    """--max-latency and its kind, each a quantity with its unit."""
    texts = {
        "--max-latency": "Like 30ms (of the median, or of what the project limits), p95=30ms, '60% of dense'.",
        "--max-memory": "Peak memory, like 50MiB.",
        "--max-size": "Size of the exported file, like 4MB.",
        "--max-energy": "Energy of one inference, like 12mJ.",
        "--max-drop": "Loss of accuracy, like 1pp (points) or 1% (of the dense value).",
    }
    for name, text in reversed(texts.items()):
        function = click.option(name, metavar="QUANTITY", help=text)(function)
    return function


def refuse_empty(command: click.Command) -> None:
    """Have a command refuse "" for each argument and path: it would name the current folder."""
    for parameter in command.params:
        names = isinstance(parameter, click.Argument) and not isinstance(parameter.type, click.Choice)
        if (names or isinstance(parameter.type, click.Path)) and not isinstance(parameter.type, _NotEmpty):
            parameter.type = _NotEmpty(parameter.type)


class _NotEmpty(click.ParamType):  # type: ignore[type-arg]  # generic only for type checkers
    """Another type, without the empty text."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self.name = inner.name
        self._inner = inner

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What the inner type makes of it."""
        if value == "":
            self.fail("it is empty; is a variable of the shell not set?", param, ctx)
        return self._inner.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What the inner type offers."""
        return self._inner.shell_complete(ctx, param, incomplete)


def emit(data: Mapping[str, Any]) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(data, indent=2, allow_nan=False))
