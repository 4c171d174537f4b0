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
from pathlib import Path
from typing import Any

import click

from edgeprune.cli.options import refuse_empty
from edgeprune.errors import DamagedError, EdgepruneError, StorageError, TaskError, UsageError

__all__ = ["JOURNAL", "Invocation", "LazyGroup", "main", "run_cli"]

INTERRUPTED = 130
INTERNAL = 70
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended

_COMPLETE = "_EDGEPRUNE_COMPLETE"  # set by a shell that asks what could come next

JOURNAL = "journal.jsonl"  # where it is, a run has begun
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(slots=True)
class Invocation:
    """What one start of the program knows besides its options."""

    arguments: tuple[str, ...] = ()
    verbosity: int = 0
    run_dir: Path | None = None  # of the run that is under way
    resume: tuple[str, ...] = field(default=())  # the command that goes on with it

    def can_resume(self, error: BaseException) -> bool:
        """Whether the same command, with --resume, can be expected to get further than this error."""
        if self.run_dir is None or not (self.run_dir / JOURNAL).exists() or not os.access(self.run_dir, os.W_OK):
            return False
        if isinstance(error, TaskError):
            return True  # once it is mended
        return not isinstance(error, (UsageError, DamagedError))


def _verbose() -> click.Option:
    """-v, which counts before and after the name of a command."""

    def count(context: click.Context, _: click.Parameter, value: int) -> None:
        invocation = context.find_object(Invocation)
        if invocation is not None:
            invocation.verbosity += value
            _log(invocation.verbosity)

    return click.Option(
        ["-v", "--verbose"],
        count=True,
        expose_value=False,
        callback=count,
        help="Say more on stderr; twice: everything.",
    )


def _log(verbosity: int) -> None:
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)
    # Protocol dumps of the SSH library are of no use to a user, and nothing of a login belongs into a log.
    logging.getLogger("paramiko").setLevel(logging.WARNING)
    # The exporter's notices about packages it can do without.
    logging.getLogger("torch").setLevel(logging.ERROR if verbosity < 2 else logging.NOTSET)


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
        if cmd_name in self._lazy:
            module, _, attribute = self._lazy[cmd_name].partition(":")
            command = getattr(import_module(module), attribute)
        else:
            command = super().get_command(ctx, cmd_name)
        if not isinstance(command, click.Command):
            return None
        if all(parameter.name != "verbose" for parameter in command.params):
            command.params.append(_verbose())
        refuse_empty(command)
        if _COMPLETE in os.environ:
            from edgeprune.cli.completion import teach

            teach(command)
        return command

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
    "watch": "edgeprune.cli.watch:watch_command",
    "report": "edgeprune.cli.project:report_command",
    "advise": "edgeprune.cli.advise:advise_command",
    "plan": "edgeprune.cli.plan:plan_command",
    "sweep": "edgeprune.cli.sweep:sweep_command",
    "explain": "edgeprune.cli.inspect:explain_command",
    "prune": "edgeprune.cli.model:prune_command",
    "sparsify": "edgeprune.cli.sparsify:sparsify_command",
    "verify": "edgeprune.cli.inspect:verify_command",
    "export": "edgeprune.cli.model:export_command",
    "measure": "edgeprune.cli.measure:measure_command",
    "package": "edgeprune.cli.package:package_command",
    "check": "edgeprune.cli.check:check_command",
    "diff": "edgeprune.cli.diff:diff_command",
    "device": "edgeprune.cli.device:device_group",
    "doctor": "edgeprune.cli.doctor:doctor_command",
    "completion": "edgeprune.cli.completion:completion_command",
}


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 all budgets met, 1 a budget violated, 2 usage, 3 could not measure, 4 infeasible, "
    "5 the exported or the pruned file disagrees with the model, 70 internal error, 130 interrupted.",
)
@click.version_option(package_name="edgeprune", message="%(version)s")
def cli() -> None:
    """Prune a trained network until a real measurement on your device says that the budget is met."""


cli.params.append(_verbose())


def main() -> None:
    """The console script `edgeprune`."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that nothing is left behind on a device
    _open_closed_streams()
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors go to stderr as "error: ..." and "hint: ..."."""
    invocation = Invocation(tuple(arguments))
    try:
        if _COMPLETE in os.environ:
            cli.main(args=list(arguments), prog_name="edgeprune", obj=invocation)
        with cli.make_context("edgeprune", list(arguments), obj=invocation) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _say("interrupted")
        _say_resume(KeyboardInterrupt(), invocation)
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
        hint = "choose another folder" if error.errno == errno.EROFS else "free some space, or choose another folder"
        error = StorageError(f"cannot write{where}: {error.strerror}", hint=hint)
    if isinstance(error, EdgepruneError):
        if invocation.verbosity:
            _say_traceback(error)
        _say(f"error: {error.message if error.args == (error.message,) else error}")
        if error.hint:
            _say(f"hint: {error.hint}")
        _say_resume(error, invocation)
        return error.exit_code
    traceback.print_exception(error)
    _say("error: this is a bug in edgeprune: please report it with the lines above")
    return INTERNAL


def _say(text: str) -> None:
    click.echo(text, err=True)


def _say_resume(error: BaseException, invocation: Invocation) -> None:
    if invocation.can_resume(error):
        _say(f"resume with: {shlex.join(invocation.resume)}")


def _say_traceback(error: Exception) -> None:
    """The traceback without its last lines: the message follows as "error: ..."."""
    whole = traceback.TracebackException.from_exception(error)
    lines = list(whole.format())
    _say("".join(lines[: len(lines) - len(list(whole.format_exception_only()))]).rstrip())


def _open_closed_streams() -> None:
    """Where a stream is closed (`>&-`), the next file to be opened would take its number, and get what is printed."""
    for descriptor in (0, 1, 2):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  lives as long as the program


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
