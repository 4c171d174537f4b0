"""The front of accuracy against what a device measures."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.main import Invocation
from edgeprune.cli.options import as_json, emit, pool_options
from edgeprune.cli.progress import open_progress
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.pipeline.sweep import Sweep

__all__ = ["sweep_command"]


@click.command("sweep", short_help="Measure the front: how accurate at which latency, memory, size.")
@click.argument("project", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--over",
    metavar="FIGURE=VALUES",
    help="Limits to solve for: latency=90%,80%,...,30% (of the dense model), latency.p95=10ms,8ms, size=1MB,500kB.",
)
@click.option("--ratios", metavar="SHARES", help="In place of --over: the same share of the channels of every layer.")
@click.option("--finetune", is_flag=True, help="Fine-tune every point wholly; by default only batch-norm statistics.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it: a .png or .svg file.")
@pool_options
@click.option("--seed", type=int, help="Of everything random.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Its folder; a new one in sweeps/ by default.")
@click.option("--resume", is_flag=True, help="Go on with a sweep that was stopped: the latest, or that of --run-dir.")
@as_json
@click.pass_obj
def sweep_command(
    invocation: Invocation,
    /,
    *,
    project: Path,
    over: str | None,
    ratios: str | None,
    finetune: bool,
    plot: Path | None,
    target: tuple[str, ...],
    profile: str | None,
    seed: int | None,
    run_dir: Path | None,
    resume: bool,
    json_output: bool,
) -> None:
    """Build and measure a network of PROJECT for each of several sizes, all planned from one table of costs.

    The project's budget plays no part. Points that another one beats in accuracy and in the figure are marked.
    """
    from edgeprune.cli.project import latest_run, overridden, resume_command
    from edgeprune.pipeline.sweep_request import parse_over, parse_ratios
    from edgeprune.records.project import load_project
    from edgeprune.report.front_plot import check_plot, draw

    if (over is None) == (ratios is None):
        raise UsageError("give --over or --ratios", hint="--over latency=90%,80%,...,30%, or --ratios 0.1,0.3,0.5")
    request = (
        parse_ratios(ratios, finetune=finetune)
        if over is None and ratios
        else parse_over(over or "", finetune=finetune)
    )
    if plot is not None:
        check_plot(plot)
    settings = overridden(load_project(project), {}, target=target, profile=profile, seed=seed)

    from edgeprune.pipeline import sweep as pipeline
    from edgeprune.pipeline.run import new_run_dir
    from edgeprune.pipeline.task import load_task

    sweeps = settings.runs.with_name("sweeps")
    if run_dir is None and resume:
        run_dir = latest_run(sweeps)
        if run_dir is None:
            raise UsageError(f"there is no sweep in {sweeps} to resume", hint="name its folder with --run-dir")
    pipeline.check_sweep(settings, request, run_dir, resume=resume)
    run_dir = run_dir or new_run_dir(sweeps)
    invocation.run_dir, invocation.resume = run_dir, resume_command(invocation.arguments, run_dir)
    try:
        with open_progress() as progress:
            progress.say(f"sweep folder: {run_dir}")
            with progress.step("loading the task"):
                task = load_task(settings.task, settings.folder)
            found = pipeline.sweep(settings, request, task=task, run_dir=run_dir, resume=resume, progress=progress)
    except BaseException:
        with suppress(OSError):  # a sweep that came to nothing leaves no empty folders
            run_dir.rmdir()
            sweeps.rmdir()
        raise
    invocation.run_dir = None
    data = found.to_json()
    if plot is not None:
        draw(data, plot)
    if json_output:
        emit({**data, "run_dir": str(run_dir.absolute()), "plot": None if plot is None else str(plot)})
        return
    for line in _lines(found):
        click.echo(line)
    click.echo(f"result: {run_dir / 'sweep.json'}")
    if plot is not None:
        click.echo(f"picture: {plot}")


def _lines(sweep: Sweep) -> list[str]:
    from edgeprune.pipeline.sweep import dominated_by
    from edgeprune.records.figures import format_figure
    from edgeprune.report import measured_on
    from edgeprune.report.table import table

    figure = sweep.request.figure
    names = ["accuracy", *sweep.figures]
    predicting = [f"{figure} predicted"] if figure else []
    rows = [["aim", *predicting, *(f"{name}" for name in names), "trial", ""]]

    def value(name: str, number: float | None) -> str:
        like = sweep.dense.figures[name].value if name in sweep.dense.figures else None
        return "missing" if number is None else format_figure(name, number, like)

    shown: set[int] = set()
    for aimed, trial in ((None, sweep.dense), *sweep.points):
        cells = [value(name, trial.figures[name].value if name in trial.figures else None) for name in names]
        guess = [] if figure is None else [value(figure, aimed.predicted.get(figure)) if aimed else ""]
        notes = []
        if aimed is not None and not aimed.reachable:
            notes.append("nothing is predicted to be within: the smallest")
        if trial.number in shown:
            notes.append("the same network as above")
        elif aimed is not None:
            better = dominated_by(trial, sweep.trials, sweep.figures[0])
            notes += [] if better is None else [f"dominated by trial {better}"]
        if trial.outcome != "OK":
            notes.append(f"{trial.outcome}: {trial.message}")
        rows.append([aimed.aim.text if aimed else "dense", *guess, *cells, str(trial.number), "; ".join(notes)])
        shown.add(trial.number)
    recovery = dict.fromkeys(str(trial.details.get("recovery", "")) for _, trial in sweep.points if trial.number)
    return [
        *table(rows),
        "all figures are measured, but where it says predicted",
        *measured_on.of_run(sweep.measured_on),
        *(f"recovery: {text}" for text in recovery),
    ]
