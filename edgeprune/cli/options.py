"""Options that several commands share: JSON output, target and profile, limits of the budget."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.records.budget import Budget

__all__ = ["as_json", "budget_options", "device_options", "emit", "limits"]

Function = TypeVar("Function", bound=Callable[..., Any])

_PERCENTILE = re.compile(r"^(p50|p90|p95|p99|mean)\s*[=:]\s*(.+)$")

as_json = click.option("--json", "json_output", is_flag=True, help="Print the data as JSON on stdout.")


def device_options(function: Function) -> Function:
    """--target and --profile; not given they are None, which leaves it to the project or to the default."""
    for option in (
        click.option("--profile", metavar="NAME|FILE", help="The device profile (`edgeprune device list`)."),
        click.option("--target", metavar="TARGET", help="Where to measure: local, or ssh://user@host:port."),
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


def limits(options: Mapping[str, str | None], *, base: Budget | None = None) -> Budget:
    """The limits that the options of `budget_options` give, by their Python names ("max_latency").

    `base` decides which latency is meant where the option does not say. Raises UsageError and its kinds, naming the
    option.
    """
    from edgeprune.records.budget import Budget

    budget = Budget()
    for name, text in options.items():
        if text is not None:
            budget = budget.override(_limit(name, text, base))
    return budget


def emit(data: Mapping[str, Any]) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(data, indent=2, allow_nan=False, default=str))


def _limit(name: str, text: str, base: Budget | None) -> Budget:
    from edgeprune.records.budget import Budget

    data: dict[str, Any]
    if name == "max_latency":
        figure, quantity = _latency(text, base)
        data = {"latency": {figure: quantity}}
    elif name == "max_drop":
        data = {"accuracy": {"max_drop": text}}
    else:
        data = {{"max_memory": "peak_memory", "max_size": "size", "max_energy": "energy"}[name]: text}
    try:
        return Budget.parse(data)
    except UsageError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error.message}", hint=error.hint) from error


def _latency(text: str, base: Budget | None) -> tuple[str, str]:
    match = _PERCENTILE.match(text.strip())
    if match:
        return match[1], match[2]
    own = [limit.metric.partition(".")[2] for limit in (base.limits if base else ()) if limit.figure[:7] == "latency"]
    if len(own) > 1:
        raise UsageError(
            f"--max-latency {text}: the project limits {' and '.join(own)}: which of them?",
            hint=f"write it like --max-latency {own[0]}={text}",
        )
    return (own[0] if own else "p50"), text
