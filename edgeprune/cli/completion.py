"""Completion in bash, zsh and fish: the script that a shell reads, and what it offers for edgeprune's own words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from edgeprune.cli.options import as_json, emit
from edgeprune.errors import UsageError

__all__ = ["VARIABLE", "completion_command", "teach"]

VARIABLE = "_EDGEPRUNE_COMPLETE"  # set by the script: the program then answers what could come next
_SHELLS = ("bash", "zsh", "fish")
_MOST = 200  # folders
_READ = {
    "bash": "~/.local/share/bash-completion/completions/edgeprune",
    "zsh": "a file _edgeprune in a folder of your $fpath",
    "fish": "~/.config/fish/completions/edgeprune.fish",
}


@click.command("completion", short_help="Print the script that lets a shell complete edgeprune's words.")
@click.argument("shell", required=False, type=click.Choice(_SHELLS))
@as_json
@click.pass_context
def completion_command(context: click.Context, shell: str | None, json_output: bool) -> None:
    """Print the completion script for SHELL, by default that of $SHELL.

    Try it in a running bash: eval "$(edgeprune completion bash)". To keep it, write it to
    ~/.local/share/bash-completion/completions/edgeprune (bash), to _edgeprune in a folder of $fpath (zsh), or to
    ~/.config/fish/completions/edgeprune.fish (fish).
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in _SHELLS else None
    if kind is None:
        raise UsageError(
            f"$SHELL is {name!r}, for which there is no completion" if name else "$SHELL says no shell",
            hint=f"name one: edgeprune completion {'|'.join(_SHELLS)}",
        )
    script = kind(context.find_root().command, {}, "edgeprune", VARIABLE).source()
    if json_output:
        emit({"shell": name, "script": script, "place": _READ[name]})
        return
    click.echo(script)


def teach(command: click.Command) -> None:
    """Have a command's parameters offer the names that edgeprune knows."""
    for parameter in command.params:
        offers = _OFFERS.get(parameter.name or "")
        if offers is not None and not isinstance(parameter.type, _Offering):
            parameter.type = _Offering(parameter.type, offers)


class _Offering(click.ParamType):  # type: ignore[type-arg]  # generic only for type checkers
    """Another type, with more to offer."""

    def __init__(self, inner: click.ParamType[Any], offers: Callable[[str], Iterator[str]]) -> None:
        self.name = inner.name
        self._inner = inner
        self._offers = offers

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What the inner type makes of it."""
        return self._inner.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, or what the inner type offers: bash shows files only where nothing else is."""
        found = sorted({name for name in self._offers(incomplete) if name.startswith(incomplete)})
        return [CompletionItem(name) for name in found] or self._inner.shell_complete(ctx, param, incomplete)


def _profiles(_: str) -> Iterator[str]:
    from edgeprune.records.profile_reader import profile_names

    yield from profile_names()


def _registered(point: str) -> Callable[[str], Iterator[str]]:
    def names(_: str) -> Iterator[str]:
        from edgeprune import registry

        yield from registry.names(point)

    return names


def _environments(_: str) -> Iterator[str]:
    from edgeprune.export.environment import ENVIRONMENTS

    yield from ENVIRONMENTS


def _targets(_: str) -> Iterator[str]:
    yield "local"


def _projects(incomplete: str) -> Iterator[str]:
    yield from _folders(incomplete, "edgeprune.yaml", ("*", "*/*"))


def _runs(incomplete: str) -> Iterator[str]:
    """Run folders near the folder that is being typed, and projects, which stand for their latest run."""
    yield from _folders(incomplete, "journal.jsonl", ("*", "*/*", "*/*/*"))
    yield from _projects(incomplete)


def _folders(incomplete: str, file: str, depths: Sequence[str]) -> Iterator[str]:
    """Folders with such a file, as the user would type them."""
    typed, slash, _ = incomplete.rpartition("/")
    base = Path(typed + slash)
    for depth in depths:
        for path in islice(base.glob(f"{depth}/{file}"), _MOST):
            yield f"{typed}{slash}{path.parent.relative_to(base)}"


_OFFERS: dict[str, Callable[[str], Iterator[str]]] = {
    "profile": _profiles,
    "strategy": _registered("strategies"),
    "importance": _registered("importances"),
    "file_format": _registered("exporters"),
    "install": _environments,
    "target": _targets,
    "project": _projects,
    "source": _projects,
    "run": _runs,
    "runs": _runs,
}
