"""`edgeprune check`: the gate of a pipeline, with its reports for CI."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.named import NAMED, named
from edgeprune.cli.options import as_json, budget_options, emit, pool_options
from edgeprune.cli.progress import open_progress
from edgeprune.errors import StorageError, UsageError

if TYPE_CHECKING:
    from edgeprune.pipeline.subject import Subject
    from edgeprune.records.gate import Gate
    from edgeprune.records.gate_policy import Policy
    from edgeprune.records.project import DeviceSettings, Project

__all__ = ["check_command"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("check", epilog=NAMED, short_help="Fail where a model exceeds its budget, or a baseline.")
@click.argument("subject", type=click.Path(path_type=Path), metavar="RUN|ARTIFACT", default=Path())
@click.option("--budget", type=_FILE, metavar="FILE", help="Limits in YAML, in place of those of the run.")
@budget_options
@pool_options
@click.option("--measure/--recorded", default=True, help="Measure now (the default), or take the run's measurement.")
@click.option("--max-age", metavar="AGE", help="How old a recorded measurement may be, like 30d.")
@click.option("--baseline", type=_FILE, metavar="JSON", help="What `check --json` wrote of the model to compare with.")
@click.option(
    "--regression", multiple=True, metavar="FIGURE=CHANGE", help="How much worse than it, like latency.p95=+5%."
)
@click.option("--warn", multiple=True, metavar="FIGURE", help="What exceeds this limit is told, and fails nothing.")
@click.option("--junit", type=_FILE, metavar="XML", help="Write a JUnit report.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write a summary, like to $GITHUB_STEP_SUMMARY.")
@click.option("--benchmark", type=_FILE, metavar="JSON", help="Write figures for github-action-benchmark.")
@as_json
def check_command(
    *,
    subject: Path,
    budget: Path | None,
    target: tuple[str, ...],
    profile: str | None,
    measure: bool,
    max_age: str | None,
    baseline: Path | None,
    regression: tuple[str, ...],
    warn: tuple[str, ...],
    junit: Path | None,
    markdown: Path | None,
    benchmark: Path | None,
    json_output: bool,
    **maxima: str | None,
) -> int:
    """Measure RUN or ARTIFACT on its device and hold it against its budget, and against a baseline.

    Exit code 0: every limit is met; 1: one is exceeded; 3: one is not known, as the device could not be reached, or
    what it measured is not conclusive.
    """
    from edgeprune.pipeline.check import check, read_baseline
    from edgeprune.pipeline.subject import check_lock, subject_of
    from edgeprune.records import gate as gates
    from edgeprune.records.gate_policy import parse_age
    from edgeprune.report.gate import render, summary

    if measure and max_age is not None:
        raise UsageError("--max-age is about recorded measurements", hint="it goes with --recorded")
    if not measure and (target or profile):
        raise UsageError("--recorded measures nothing", hint="leave out --target and --profile")
    if regression and baseline is None:
        raise UsageError("--regression compares with a baseline", hint="name one: --baseline main.json")
    max_age_s = None if max_age is None else parse_age(max_age)
    path, project = named(subject)
    found = subject_of(path)
    check_lock(found)
    policy = _policy(found, project, budget, maxima, regression).only_warned(warn)
    reference = None if baseline is None else read_baseline(baseline)
    if reference is not None and not any(part.limits for part in policy.regression.values()):
        raise UsageError(
            "--baseline: nothing says how much worse than it the model may be",
            hint="give --regression latency.p95=+5%, or `regression:` in the budget file",
        )
    if said := _differing(found, project, budget):
        click.echo(said, err=True)
    device = _device(found, project, target, profile) if measure else None
    with open_progress() as progress:
        gate = check(found, policy, device=device, baseline=reference, max_age_s=max_age_s, progress=progress)
    _write(gate, junit, markdown, benchmark)
    if json_output:
        emit(gates.to_json(gate))
        for line in summary(gate):  # a pipeline keeps the JSON, and shows this
            click.echo(line, err=True)
    else:
        click.echo(render(gate), nl=False)
    if gate.reading.origin.hint and not gate.is_measured:
        click.echo(f"hint: {gate.reading.origin.hint}", err=True)
    return gate.exit_code


def _policy(
    subject: Subject,
    project: Project | None,
    file: Path | None,
    maxima: dict[str, str | None],
    regression: tuple[str, ...],
) -> Policy:
    """The limits of the budget file, else of the project, else of the run; over them the options."""
    from edgeprune.records.budget import Budget
    from edgeprune.records.gate_policy import Policy, regression_option
    from edgeprune.records.gate_policy_reader import read_policy
    from edgeprune.records.profile import load_profile
    from edgeprune.records.project import budget_overrides

    if file is not None:
        policy = read_policy(file)
    elif project is not None:
        policy = Policy.of(load_profile(project.device.profile).budget.override(project.budget))
    else:
        policy = Policy.of(Budget() if subject.result is None else subject.result.budget)
    errors = budget_overrides(policy.budget["error"], **maxima)
    worse = policy.regression["error"].override(Budget(tuple(map(regression_option, regression))))
    return Policy({**policy.budget, "error": errors}, {**policy.regression, "error": worse})


def _differing(subject: Subject, project: Project | None, file: Path | None) -> str:
    """What to say where a project's limits are others than those that its run was held to; else empty."""
    if file is not None or project is None or subject.result is None:
        return ""
    if {*project.budget.limits} <= {*subject.result.budget.limits}:
        return ""
    return f"warning: {project.path} has other limits than the run was held to; for those: check {subject.run_dir}"


def _device(subject: Subject, project: Project | None, target: tuple[str, ...], profile: str | None) -> DeviceSettings:
    """Where to measure: the options, over the project's device, or that of the run."""
    from dataclasses import replace

    from edgeprune.pipeline.check import device_of_run
    from edgeprune.records.project import DeviceSettings

    device = device_of_run(subject) if project is None else project.device
    if len(target) == 1:
        device = replace(device, target=target[0], targets=())
    elif target:
        device = replace(device, target=DeviceSettings().target, targets=target)
    return device if profile is None else replace(device, profile=profile)


def _write(gate: Gate, junit: Path | None, markdown: Path | None, benchmark: Path | None) -> None:
    """The reports that were asked for; raises StorageError."""
    from edgeprune import atomic
    from edgeprune.report import benchmark_action
    from edgeprune.report import junit as junit_xml
    from edgeprune.report import markdown as summary

    if junit is not None:
        atomic.write_bytes(junit, junit_xml.render(gate))
    if benchmark is not None:
        entries = benchmark_action.entries(gate)
        atomic.write_text(benchmark, json.dumps(entries, indent=2, allow_nan=False) + "\n")
    if markdown is not None and str(markdown) == os.environ.get("GITHUB_STEP_SUMMARY"):
        try:  # a step's commands share that file: it is added to
            with markdown.open("a", encoding="utf-8") as file:
                file.write(summary.render(gate))
        except OSError as error:
            raise StorageError(f"cannot write {markdown}: {error.strerror or error}") from error
    elif markdown is not None:
        atomic.write_text(markdown, summary.render(gate))
