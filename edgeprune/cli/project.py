"""Commands on a project: init, run, report."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune import registry
from edgeprune.cli.main import JOURNAL, Invocation
from edgeprune.cli.options import as_json, budget_options, emit, pool_options
from edgeprune.cli.progress import open_progress
from edgeprune.errors import StorageError, UnreadableError, UsageError

if TYPE_CHECKING:
    from edgeprune.records.project import Project

__all__ = ["init_command", "latest_run", "overridden", "report_command", "resume_command", "run_command", "run_folder"]

_RESULT = "result.json"
_RUN = "run.json"
_REPORT = "report.html"


@click.command("init", short_help="Begin a project, empty or with an example.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--example", metavar="NAME", help="Write an example that works: digits.")
@as_json
def init_command(folder: Path, example: str | None, json_output: bool) -> None:
    """Begin a project in FOLDER: a task (task.py) and a project file (edgeprune.yaml)."""
    from edgeprune.pipeline.init import init

    files = init(folder, example=example)
    if json_output:
        emit({"folder": str(folder), "files": [str(file) for file in files]})
        return
    for file in files:
        click.echo(f"wrote {file}")
    if example is None:
        click.echo(f"fill in {folder / 'task.py'}, then: {_command('run', folder)}")
    else:
        click.echo(f"next: {_command('run', folder)}")


def _strategies() -> str:
    """Their names, the default first."""
    from edgeprune.records.project import SearchSettings

    default = SearchSettings().strategy
    others = [name for name in registry.names("strategies") if name != default]
    return ", ".join([f"{default} (the default)", *others])


@click.command("run", short_help="Prune until the budget is met by measurement.")
@click.argument("project", type=click.Path(path_type=Path), default=Path())
@pool_options
@budget_options
@click.option("--seed", type=int, help="Of everything random.")
@click.option("--strategy", metavar="NAME", help=f"How to search: {_strategies()}.")
@click.option(
    "--quantize",
    type=click.Choice(["none", "int8"]),
    help="What is measured and comes out: int8, calibrated on the task's training inputs, or the float network.",
)
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run's folder; a new one in runs/ by default.")
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped: the latest, or that of --run-dir.")
@as_json
@click.pass_obj
def run_command(
    invocation: Invocation,
    /,
    *,
    project: Path,
    target: tuple[str, ...],
    profile: str | None,
    seed: int | None,
    strategy: str | None,
    quantize: str | None,
    run_dir: Path | None,
    resume: bool,
    json_output: bool,
    **maxima: str | None,
) -> int:
    """Prune the model of PROJECT (a folder with edgeprune.yaml, or the file) until its budget is met by measurement."""
    from edgeprune.records import codec
    from edgeprune.records.project import load_project
    from edgeprune.report.text import render

    settings = overridden(load_project(project), maxima, target=target, profile=profile, seed=seed, strategy=strategy)
    if quantize is not None:
        settings = replace(settings, export=replace(settings.export, quantize=quantize))

    from edgeprune.pipeline import run as pipeline
    from edgeprune.pipeline.run_checks import check_settings
    from edgeprune.pipeline.task import load_task

    if run_dir is None and resume:
        run_dir = latest_run(settings.runs)
        if run_dir is None:
            raise UsageError(
                f"there is no run in {settings.runs} to resume", hint="name its folder with --run-dir, or start one"
            )
    check_settings(settings, run_dir, resume=resume)
    run_dir = run_dir or pipeline.new_run_dir(settings.runs)
    invocation.run_dir, invocation.resume = run_dir, resume_command(invocation.arguments, run_dir)
    try:
        with open_progress() as progress:
            progress.say(f"run folder: {run_dir}")
            with progress.step("loading the task"):
                task = load_task(settings.task, settings.folder)
            result = pipeline.run(settings, task=task, run_dir=run_dir, resume=resume, progress=progress)
    except BaseException:
        with suppress(OSError):  # a run that came to nothing leaves no empty folders
            run_dir.rmdir()
            settings.runs.rmdir()
        raise
    invocation.run_dir = None
    data = codec.to_json(result)
    if json_output:
        emit({**data, "run_dir": str(run_dir.absolute())})
    else:
        click.echo(render(data, run_dir=run_dir), nl=False)
    return result.exit_code


@click.command("report", short_help="Show the result of a run.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    is_flag=False,
    flag_value=Path(_REPORT),
    metavar="[FILE]",
    help="Write the report as one HTML file; report.html in the run's folder where none is named.",
)
@as_json
def report_command(run: Path, html: Path | None, json_output: bool) -> None:
    """Show the result of RUN (a run's folder, or its result.json), or of the latest run of a project."""
    from edgeprune.pipeline.begun import resuming, unfinished
    from edgeprune.report.text import render

    run = run_folder(run)
    file = run / _RESULT if run.is_dir() else run
    again = "name a run's folder, or its result.json"
    if (file.parent / JOURNAL).exists():
        again = f"write it again from the run's journal: {resuming(file.parent)}"
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        absent = UsageError(f"there is no result in {run}", hint="name a run's folder, like runs/20260101-120000")
        raise (unfinished(file.parent) or absent) from error
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{file} cannot be read: {error}", hint=again) from error
    if not isinstance(data, dict):
        raise UnreadableError(f"{file} is not a result of edgeprune", hint=again)
    try:
        text = render(data, run_dir=file.parent)
    except StorageError as error:
        raise UnreadableError(f"{file}: {error.message}", hint=again) from error
    if html is not None:
        from edgeprune.pipeline.report import write_report

        named = html != Path(_REPORT)
        html = write_report(file.parent, html if named else None)
        text = text + f"report: {html}\n" if named else render(data, run_dir=file.parent)
    if json_output:
        emit(data)
    else:
        click.echo(text, nl=False)


def run_folder(run: Path) -> Path:
    """What names a run: its folder, or the latest run of the project that is named; raises UsageError."""
    if run.suffix not in (".yaml", ".yml") and not (run / "edgeprune.yaml").is_file():
        return run
    from edgeprune.records.project import load_project

    runs = load_project(run).runs
    latest = latest_run(runs)
    if latest is None:
        raise UsageError(f"there is no run in {runs}", hint=f"start one: {_command('run', run)}")
    return latest


def overridden(
    project: Project,
    maxima: dict[str, str | None],
    *,
    target: tuple[str, ...],
    profile: str | None,
    seed: int | None = None,
    strategy: str | None = None,
) -> Project:
    """The project with what the command line says in place of what its file says."""
    from edgeprune.records.project import DeviceSettings, budget_overrides

    device, search = project.device, project.search
    if len(target) == 1:
        device = replace(device, target=target[0], targets=())
    elif target:
        device = replace(device, target=DeviceSettings().target, targets=target)
    if profile is not None:
        device = replace(device, profile=profile)
    if seed is not None:
        search = replace(search, seed=seed)
    if strategy is not None:
        search = replace(search, strategy=strategy)
    budget = budget_overrides(project.budget, **maxima)
    return replace(project, device=device, search=search, budget=budget)


def latest_run(runs: Path) -> Path | None:
    """The folder below `runs` that was begun or written to last; None where there is none."""
    files = [file for name in (JOURNAL, _RUN) for file in runs.glob(f"*/{name}")]
    written = sorted(files, key=lambda file: (file.stat().st_mtime, file.parent.name))
    return written[-1].parent if written else None


def _command(name: str, folder: Path) -> str:
    """A command that can be copied into a shell."""
    return shlex.join(("edgeprune", name, str(folder)))


def resume_command(arguments: tuple[str, ...], run_dir: Path) -> tuple[str, ...]:
    """The same command, resuming in that folder: a run is resumed with the options that it was started with."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--run-dir":
            next(rest, None)
        elif argument != "--resume" and not argument.startswith("--run-dir="):
            kept.append(argument)
    return ("edgeprune", *kept, "--resume", "--run-dir", str(run_dir))
