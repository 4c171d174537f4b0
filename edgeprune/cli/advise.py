"""What each way of making a model smaller is worth on a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import as_json, budget_options, device_options, emit
from edgeprune.cli.progress import open_progress
from edgeprune.cli.source import SOURCE, captured_from

if TYPE_CHECKING:
    from edgeprune.pipeline.advise import Advice
    from edgeprune.pipeline.recommendation import Method
    from edgeprune.records.figures import Figures
    from edgeprune.records.project import Project

__all__ = ["advise_command"]

_METHODS = ("structured", "2:4", "unstructured", "int8")
_COLUMNS = ("accuracy", "latency.p50", "peak_memory", "size", "download")
_RATIOS = {"latency.p50": "latency"}


@click.command("advise", epilog=SOURCE, short_help="Measure what pruning, sparsity and int8 are worth on a device.")
@click.argument("source")
@device_options
@budget_options
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(_METHODS),
    help="Try only this; repeatable. By default all four, and structured with int8.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Examples without labels, for int8 and the fidelity: .npz with an array per input, or .npy.",
)
@click.option("--seed", type=int, help="Of everything random.")
@as_json
def advise_command(
    *,
    source: str,
    target: str | None,
    profile: str | None,
    methods: tuple[str, ...],
    calibration: Path | None,
    seed: int | None,
    json_output: bool,
    **maxima: str | None,
) -> None:
    """Measure SOURCE on a device dense, with fewer channels, with zeros (2:4 and unstructured) and in int8.

    Latency is compared in turn with the dense model, and a ratio is told with its 95 % interval. Nothing is
    fine-tuned, and nothing is written. A project gives its device and its budget, which the options override.
    """
    from edgeprune.pipeline.advise import advise
    from edgeprune.pipeline.calibration import check_file
    from edgeprune.pipeline.run_checks import targets_of
    from edgeprune.records.project import DeviceSettings, Project, SearchSettings, budget_overrides

    project = _project(source) or Project("", Path(source).absolute(), search=SearchSettings())
    device = project.device
    if target is not None:
        device = replace(device, target=target, targets=())
    if profile is not None:
        device = replace(device, profile=profile)
    project = replace(project, device=device)
    budget = budget_overrides(project.budget, **maxima)
    targets = targets_of(project)
    if calibration is not None:
        check_file(calibration)
    with open_progress() as progress:
        if len(targets) > 1:
            progress.say(f"of {len(targets)} devices the first measures: {targets[0].name}")
        with progress.step("capturing the model"):
            captured, task = captured_from(source)
        advice = advise(
            captured,
            task=task,
            target=targets[0],
            profile=device.profile or DeviceSettings().profile,
            budget=budget,
            methods=methods or _METHODS,
            calibration=calibration,
            round_to=project.search.round_to,
            min_width=project.search.min_width,
            ignored=project.search.ignored,
            format=project.export.format,
            seed=project.search.seed if seed is None else seed,
            progress=progress,
        )
    if json_output:
        emit(advice.to_json())
        return
    for line in _lines(advice):
        click.echo(line)


def _project(source: str) -> Project | None:
    path = Path(source)
    if not path.is_dir() and path.suffix not in (".yaml", ".yml"):
        return None
    from edgeprune.records.project import load_project

    return load_project(path)


def _lines(advice: Advice) -> list[str]:
    from edgeprune.report import measured_on
    from edgeprune.report.table import table

    rows = [["method", "accuracy", "latency p50", "peak memory", "size", "download (xz)"]]
    rows.append(["dense", *(_cell(name, advice.dense) for name in _COLUMNS)])
    rows += [[method.name, *_cells(method)] for method in advice.methods]
    lines = table(rows)
    lines.append("ratios to the dense model, with their 95 % intervals; a latency's is of runs in turn with it")
    if advice.measurement.provenance is not None:
        lines.append(measured_on.of_provenance(advice.measurement.provenance))
    lines += [f"warning: {text}" for text in advice.warnings]
    recoveries = dict.fromkeys(m.recovery for m in advice.methods if m.recovery and m.kind in ("structured", "sparse"))
    lines += [f"recovery: {', '.join(recoveries)}"] if recoveries else []
    if any(method.kind in ("int8", "both") for method in advice.methods):
        lines.append(
            f"int8 is calibrated on {advice.calibrated_on}, and evaluated in this machine's ONNX Runtime, "
            "where the device computes the same"
        )
    advised = advice.recommendation
    return [*lines, "", *(f"- {reason}" for reason in advised.reasons), "", f"recommended: {advised.text}"]


def _cells(method: Method) -> list[str]:
    cells = []
    for name in _COLUMNS:
        ratio = method.ratios.get(_RATIOS.get(name, name))
        text = _cell(name, method.figures)
        if name == "accuracy":
            if method.accuracy_change is not None:
                text = f"{text} ({method.accuracy_change * 100:+.2f} pp)"
            elif method.agreement is not None:
                text = f"{method.agreement:.1%} as dense"
        elif ratio is not None:
            text = f"{text}, {ratio}"
        cells.append(text)
    return cells


def _cell(name: str, figures: Figures) -> str:
    from edgeprune.records.figures import format_figure

    figure = figures.get(name)
    if figure is None or figure.value is None:
        return "missing"
    return format_figure("size" if name == "download" else name, figure.value)
