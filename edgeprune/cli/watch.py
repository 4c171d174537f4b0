"""A run as it goes on, in the terminal; it reads the run's folder and nothing else."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import as_json, emit

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

    from edgeprune.pipeline.watch import Snapshot
    from edgeprune.records.budget import LimitCheck
    from edgeprune.records.figures import Figure
    from edgeprune.records.trial import Trial

__all__ = ["watch_command"]

_EVERY_S = 1.0
_AROUND = 16  # lines of the picture that are not rows of trials
_LEAST_ROWS = 3
_INTERRUPTED = 130
_STYLES = {"met": "green", "violated": "red", "unknown": "yellow"}


@click.command("watch", short_help="Show a run while it goes on.")
@click.argument("run", type=click.Path(path_type=Path), default=Path())
@click.option("--once", is_flag=True, help="Show how far it is now, and end.")
@as_json
def watch_command(run: Path, once: bool, json_output: bool) -> int:
    """Show RUN (a run's folder, or a project: its latest run) until it ends: stage, trials, the best so far.

    The run takes no notice: Ctrl-C ends the watching alone. A run that is over is shown once; any is with --json.
    """
    from edgeprune.cli.project import run_folder
    from edgeprune.pipeline.watch import snapshot

    folder = run_folder(run)
    if folder.name == "result.json":
        folder = folder.parent
    first = snapshot(folder)
    if json_output:
        emit(first.to_json())
        return 0
    if once or first.state != "running":
        for line in [*_lines(first), *_trial_lines(first, 0)]:
            click.echo(line)
        return 0
    try:
        if sys.stdout.isatty():
            _live(first)
        else:
            _follow(first)
    except KeyboardInterrupt:
        click.echo("no longer watching; the run goes on", err=True)
        return _INTERRUPTED
    return 0


def _follow(shown: Snapshot) -> None:
    """Lines: each trial as it comes, what is being done as it changes, the end."""
    from edgeprune.pipeline.watch import snapshot

    for line in [*_lines(shown), *_trial_lines(shown, 0)]:
        click.echo(line)
    while shown.state == "running":
        time.sleep(_EVERY_S)
        now = snapshot(shown.folder)
        for line in [*_trial_lines(now, len(shown.trials)), *_attempt_lines(now, len(shown.attempts))]:
            click.echo(line)
        if now.now and now.now != shown.now:
            click.echo(now.now)
        sys.stdout.flush()
        shown = now
    for line in _lines(shown):
        click.echo(line)


def _live(shown: Snapshot) -> None:
    """A picture that is drawn again every second; its last one stays."""
    from rich.console import Console
    from rich.live import Live

    from edgeprune.pipeline.watch import snapshot

    console = Console()
    with Live(_picture(shown, console.height), console=console, auto_refresh=False) as live:
        while shown.state == "running":
            time.sleep(_EVERY_S)
            shown = snapshot(shown.folder)
            live.update(_picture(shown, console.height), refresh=True)


def _lines(shown: Snapshot) -> list[str]:
    """How far the run is, in plain text."""
    lines = [f"run: {shown.folder}", f"state: {_state(shown)}"]
    if shown.now:
        lines.append(f"now: {shown.now}")
    lines.append(f"trials: {_progress(shown)}")
    if shown.best is not None and shown.check is not None:
        lines.append(f"best: trial {shown.best.number}, {shown.best_is}")
        lines += [f"  {_limit(entry)}: {entry.state.value}" for entry in shown.check.limits]
    lines.append(f"journal: {_last(shown)}")
    return lines


def _state(shown: Snapshot) -> str:
    if shown.state == "running":
        return "running" + (f" (process {shown.pid})" if shown.pid else "") + _took(shown, " for ")
    if shown.state == "finished":
        return f"finished: {shown.status}{_took(shown, ' after ')}"
    from edgeprune.pipeline.begun import resuming

    return f"not running: stopped before its end{_took(shown, ' after ')}; go on with: {resuming(shown.folder)}"


def _took(shown: Snapshot, word: str) -> str:
    return "" if shown.elapsed_s is None else word + _time(shown.elapsed_s)


def _progress(shown: Snapshot) -> str:
    most = "" if shown.max_trials is None else f" of at most {shown.max_trials}"
    other = len(shown.trials) - shown.measured
    return f"{shown.measured}{most} measured" + (f", {other} more only evaluated" if other else "")


def _last(shown: Snapshot) -> str:
    return f"{shown.last or 'empty'}" + ("" if shown.last_age_s is None else f", {_time(shown.last_age_s)} ago")


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _limit(entry: LimitCheck) -> str:
    """ "latency.p50 60% of dense: 0.512 ms (at most 0.576 ms)"."""
    from edgeprune.records.figures import format_figure

    name = entry.limit.figure
    value = "missing" if entry.value is None else format_figure(name, entry.value, entry.bound)
    word = "at least" if entry.limit.is_accuracy else "at most"
    bound = "" if entry.bound is None else f" ({word} {format_figure(name, entry.bound)})"
    return f"{entry.limit.metric} {entry.limit.text}: {value}{bound}"


def _trial_lines(shown: Snapshot, known: int) -> list[str]:
    return [_trial_line(shown, trial) for trial in shown.trials[known:]]


def _trial_line(shown: Snapshot, trial: Trial) -> str:
    figures = [f"{name.removeprefix('latency.')} {text}" for name, text in _figures(shown, trial).items() if text]
    failed = "" if trial.outcome == "OK" else f"{trial.outcome}: {trial.message}"
    return f"trial {trial.number} ({_title(trial)}): {', '.join([*figures, *([failed] if failed else [])])}"


def _title(trial: Trial) -> str:
    """ "dense", "dense, int8", or the stage of a candidate."""
    from edgeprune.pipeline.watch import is_quantised

    if not trial.candidate.is_dense:
        return trial.stage.value
    return "dense, int8" if is_quantised(trial) else "dense"


def _attempt_lines(shown: Snapshot, known: int) -> list[str]:
    return [
        f"trial {attempt['number']}: {attempt['outcome']}: {attempt['message']}" for attempt in shown.attempts[known:]
    ]


def _figures(shown: Snapshot, trial: Trial) -> dict[str, str]:
    """Accuracy, and what the budget limits of the device's figures; "" where there is none."""
    from edgeprune.records.figures import format_figure

    def told(name: str, figure: Figure | None) -> str:
        if figure is None or figure.value is None:
            return ""
        dense = shown.trials[0].figures.get(name)
        return format_figure(name, figure.value, None if dense is None else dense.value)

    names = dict.fromkeys(("accuracy", *(limit.figure for limit in shown.budget.limits)))
    return {name: told(name, trial.figures.get(name)) for name in names}


def _picture(shown: Snapshot, height: int) -> Group:
    """The run, as high as the terminal at most."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text.assemble(("edgeprune ", "bold"), str(shown.folder)),
        Text(_state(shown), style="green" if shown.state == "running" else "bold"),
        Text.assemble(("now      ", "dim"), shown.now or "–"),
        Text.assemble(("trials   ", "dim"), _progress(shown)),
        Text.assemble(("journal  ", "dim"), _last(shown)),
        Text(""),
    ]
    if shown.best is not None and shown.check is not None:
        parts.append(Text.assemble((f"trial {shown.best.number} ", "bold"), f"is {shown.best_is}"))
        for entry in shown.check.limits:
            style = _STYLES[entry.state.value]
            parts.append(Text.assemble("  ", (f"{entry.state.value:9}", style), _limit(entry)))
        parts.append(Text(""))
    rows = max(height - _AROUND - len(shown.budget.limits), _LEAST_ROWS)
    parts.append(_table(shown, rows))
    parts.append(Text("Ctrl-C ends the watching; the run goes on", style="dim"))
    return Group(*parts)


def _table(shown: Snapshot, rows: int) -> Table:
    """The last trials, as many as there is room for."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    left = shown.trials[-rows:]
    hidden = len(shown.trials) - len(left)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=f"and {hidden} before" if hidden else None)
    table.add_column("trial", justify="right")
    table.add_column("stage")
    for name in _figures(shown, shown.trials[0]) if shown.trials else ():
        table.add_column(name.replace("latency.", "").replace("_", " "), justify="right")
    table.add_column("")
    for trial in left:
        best = shown.best is not None and trial.number == shown.best.number
        note = trial.outcome if trial.outcome != "OK" else "best" if best else ""
        cells = [str(trial.number), _title(trial)]
        values = [text or "–" for text in _figures(shown, trial).values()]
        table.add_row(*(Text(text) for text in (*cells, *values, note)), style="bold" if best else None)
    return table
