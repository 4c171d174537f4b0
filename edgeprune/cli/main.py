"""The command line: lazy commands, and the one place where an exception becomes a message and an exit code."""

from __future__ import annotations

import difflib
import errno
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import click

from edgeprune.errors import EdgepruneError, StorageError

__all__ = ["Invocation", "LazyGroup", "main", "run_cli"]

INTERRUPTED = 130
INTERNAL = 70
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(slots=True)
class Invocation:
    """What one start of the program knows besides its options."""

    arguments: tuple[str, ...] = ()
    verbosity: int = 0
    resume: tuple[str, ...] = field(default=())  # the command that goes on, while there is something to go on with


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used; `lazy` maps names to "module:attribute"."""

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """The commands in the order of a project's life, not of the alphabet."""
        return [*self._lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion for a misspelt command."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            asks = f", did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no command {name!r}{asks}", ctx)
        return super().resolve_command(ctx, args)


_COMMANDS = {
    "init": "edgeprune.cli.project:init_command",
    "run": "edgeprune.cli.project:run_command",
    "report": "edgeprune.cli.project:report_command",
    "prune": "edgeprune.cli.model:prune_command",
    "export": "edgeprune.cli.model:export_command",
    "measure": "edgeprune.cli.model:measure_command",
    "device": "edgeprune.cli.device:device_group",
}


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 all budgets met, 1 a budget violated, 2 usage, 3 could not measure, 4 infeasible, "
    "5 the exported file disagrees with the model, 70 internal error, 130 interrupted.",
)
@click.option("-v", "--verbose", count=True, help="Say more on stderr; twice: everything.")
@click.version_option(package_name="edgeprune", message="%(version)s")
@click.pass_obj
def cli(invocation: Invocation, verbose: int) -> None:
    """Prune a trained network until a real measurement on your device says that the budget is met."""
    invocation.verbosity = verbose
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)
    # Protocol dumps of the SSH library are of no use to a user, and nothing of a login belongs into a log.
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    if verbose < 2:
        logging.getLogger("torch").setLevel(logging.ERROR)  # the exporter's notices about packages it can do without


def main() -> None:
    """The console script `edgeprune`."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that nothing is left behind on a device
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors go to stderr as "error: ..." and "hint: ..."."""
    invocation = Invocation(tuple(arguments))
    try:
        if "_EDGEPRUNE_COMPLETE" in os.environ:
            cli.main(args=list(arguments), prog_name="edgeprune", obj=invocation)
        with cli.make_context("edgeprune", list(arguments), obj=invocation) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        if invocation.resume:
            _say(f"resume with: {shlex.join(invocation.resume)}")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output is gone; Python must not complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # the boundary: bugs are reported, too
        return _report(error, invocation)
    return code if isinstance(code, int) else 0


def _report(error: Exception, invocation: Invocation) -> int:
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        _say("aborted")
        return INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        _say(f"error: {error.format_message()}")
        _say(f"hint: {context.command_path if context else 'edgeprune'} --help says what is possible")
        return 2
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        where = f" {error.filename}" if error.filename else ""
        error = StorageError(f"cannot write{where}: {error.strerror}", hint="free some space, or choose another folder")
    if isinstance(error, EdgepruneError):
        if invocation.verbosity:
            traceback.print_exception(error)
        _say(f"error: {error.message if error.args == (error.message,) else error}")
        if error.hint:
            _say(f"hint: {error.hint}")
        if invocation.resume and error.exit_code != 2:
            _say(f"resume with: {shlex.join(invocation.resume)}")
        return error.exit_code
    traceback.print_exception(error)
    _say("error: this is a bug in edgeprune: please report it with the lines above")
    return INTERNAL


def _say(text: str) -> None:
    click.echo(text, err=True)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
