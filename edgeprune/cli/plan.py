"""What a run could reach and would take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import as_json, budget_options, emit, pool_options
from edgeprune.cli.progress import open_progress

if TYPE_CHECKING:
    from edgeprune.pipeline.plan import Plan

__all__ = ["plan_command"]

_SHOWN = 5  # frozen groups


@click.command("plan", short_help="What a run could reach and would take, before any training.")
@click.argument("project", type=click.Path(path_type=Path), default=Path())
@pool_options
@budget_options
@as_json
def plan_command(
    *, project: Path, target: tuple[str, ...], profile: str | None, json_output: bool, **maxima: str | None
) -> None:
    """Measure the dense model of PROJECT and a few smaller ones, and predict how small each figure can get.

    Nothing is trained and no run is begun; timings of operators and sensitivities are kept in the user's cache for
    the run. That a budget is predicted to be feasible is no promise: only `run` proves it.
    """
    from edgeprune.cli.project import overridden
    from edgeprune.records.project import load_project

    settings = overridden(load_project(project), maxima, target=target, profile=profile)

    from edgeprune.pipeline.plan import plan
    from edgeprune.pipeline.run_checks import check_project
    from edgeprune.pipeline.task import load_task

    check_project(settings)
    with open_progress() as progress:
        with progress.step("loading the task"):
            task = load_task(settings.task, settings.folder)
        found = plan(settings, task=task, progress=progress)
    if json_output:
        emit(found.to_json())
        return
    for line in _lines(found):
        click.echo(line)


def _lines(plan: Plan) -> list[str]:
    from edgeprune.records.figures import format_figure
    from edgeprune.report import measured_on
    from edgeprune.report.table import table

    limited = any(entry.limit is not None for entry in plan.ranges)
    rows = [
        ["figure", "dense, measured", "smallest, predicted", *(["within the other limits", "limit"] if limited else [])]
    ]
    for entry in plan.ranges:
        like = entry.dense.value or 0.0
        values = (entry.dense.value, entry.alone, *((entry.together, entry.limit) if limited else ()))
        told = ["none" if value is None else format_figure(entry.figure, value, like) for value in values]
        rows.append([entry.figure.replace("latency.", "latency "), *told])
    lines = table(rows)
    accuracy = plan.dense["accuracy"].value
    if accuracy is not None:
        lines.append(
            f"accuracy of the dense model: {format_figure('accuracy', accuracy)}; what is lost only training shows"
        )
    errors = [f"{e.figure} {e.error:.1%}" for e in plan.ranges if e.error is not None]
    if errors:
        lines.append(
            f"predictions missed {plan.measured - 1} networks that were measured by at most: {', '.join(errors)}"
        )
    lines += measured_on.of_run(plan.measured_on)
    lines += ["", *_verdict(plan)]
    lines.append(
        f"{plan.groups} channel groups with {plan.units} units can be narrowed, {len(plan.blocks)} blocks dropped"
    )
    lines += [f"frozen {name}: {reason}" for name, reason in plan.frozen[:_SHOWN]]
    if len(plan.frozen) > _SHOWN:
        lines.append(f"and {len(plan.frozen) - _SHOWN} more are frozen (`edgeprune explain`)")
    return [*lines, *_effort(plan), f"no run was begun; timings of operators are kept in {plan.cache}"]


def _verdict(plan: Plan) -> list[str]:
    from edgeprune.records.figures import format_figure

    words = {
        "yes": "the budget is predicted to be feasible on the device",
        "close": "the budget is predicted to be just feasible: less than the prediction may miss lies between",
        "no": "the budget is predicted to be INFEASIBLE on the device",
        "unknown": "the budget limits nothing that can be predicted",
    }
    lines = [words[plan.feasible]]
    if plan.relaxation is not None:
        wider = ", ".join(
            f"{e.figure} {format_figure(e.figure, e.relaxed, e.limit)}" for e in plan.ranges if e.relaxed is not None
        )
        lines.append(f"with all limits {plan.relaxation:.1%} wider it would be feasible: {wider}")
    if plan.unplanned:
        lines.append(f"limits that only measurements can be held against: {', '.join(plan.unplanned)}")
    return lines


def _effort(plan: Plan) -> list[str]:
    effort = plan.effort
    measuring, building = _time(effort.measurement_s), _time(effort.build_s)
    most = f"at most {effort.measurements} of them (max_trials), {_time(effort.device_s)} on the device"
    most += "; one that is doubted is done again"
    lines = [f"a measurement takes {measuring} here, building its network {building}: {most}"]
    if effort.fine_tuning_s is None or effort.short_s is None:
        return [*lines, "nothing is trained: there is no training part, or no epochs"]
    product = f"{effort.batches} batches x {effort.epochs} epochs x {_time(effort.batch_s or 0.0)}"
    whole = f"a whole fine-tuning: {product} = {_time(effort.fine_tuning_s)}; a run ends with one, or a few"
    short = f"a short one: {_time(effort.short_s)}; milp and evolutionary rank a few so, netadapt several in each step"
    return [*lines, whole, short]


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
