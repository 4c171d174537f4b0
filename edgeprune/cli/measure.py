"""`edgeprune measure`: a file on a device, alone or against another one; recorded, or replayed from a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import as_json, budget_options, device_options, emit
from edgeprune.cli.progress import open_progress
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.records.artifact import Artifact
    from edgeprune.records.budget import Budget, BudgetCheck
    from edgeprune.records.comparison import Comparison
    from edgeprune.records.figures import Figures
    from edgeprune.records.measurement import Measurement, Window
    from edgeprune.records.runtime_profile import RuntimeProfile

__all__ = ["measure_command"]

_SHOWN = 0.001  # of the time of all operators: a shorter one has no line of its own
_NAME = 80  # characters of an operator's name


@click.command("measure", short_help="Measure an exported file on a device.")
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@device_options
@budget_options
@click.option("--energy", is_flag=True, help="Measure energy as well (half a minute); --max-energy does so too.")
@click.option("--against", type=click.Path(path_type=Path), metavar="FILE", help="Another file, run in turn with it.")
@click.option("--operators", is_flag=True, help="Tell where the time goes, by the runtime's own profiler.")
@click.option("--sustained", metavar="TIME", help="Run for that long, like 10min, and tell how it goes over time.")
@click.option("--record", type=click.Path(path_type=Path), metavar="ZIP", help="Keep all that the device said.")
@click.option("--replay", type=click.Path(path_type=Path), metavar="ZIP", help="A recording in place of ARTIFACT.")
@as_json
def measure_command(
    *,
    artifact: Path | None,
    target: str | None,
    profile: str | None,
    energy: bool,
    against: Path | None,
    operators: bool,
    sustained: str | None,
    record: Path | None,
    replay: Path | None,
    json_output: bool,
    **maxima: str | None,
) -> int:
    """Measure ARTIFACT (an .onnx file) on a device: latency, peak memory, size, energy.

    With limits the exit code tells whether they are met; accuracy is not known here. With --against the two files run
    in turn, and the ratio of their latencies is told with its interval. With --operators each operator of the graph
    that the runtime made of the file is told with its time.
    """
    from edgeprune import units
    from edgeprune.export import manifest
    from edgeprune.pipeline.measure import measure
    from edgeprune.records.budget import Budget
    from edgeprune.records.project import budget_overrides

    _check_options(artifact, against, sustained, record, replay)
    budget = budget_overrides(Budget(), **maxima)
    if operators and (against or sustained or record or replay or energy or budget.limits):
        raise UsageError(
            "--operators tells where the time goes, and nothing else", hint="measure the rest in a call of its own"
        )
    for limit in budget.limits:
        if limit.relative or limit.is_accuracy:
            raise UsageError(
                f"{limit.text!r} needs the dense model, which `measure` does not know",
                hint="give an absolute limit, or use `edgeprune run`",
            )
    if replay is not None:
        from edgeprune.measure.recording import read
        from edgeprune.measure.recording import replay as again

        return _told(again(read(replay)), None, budget, json_output=json_output)
    assert artifact is not None  # noqa: S101  checked above
    if against is not None:
        return _compared(artifact, against, target, profile, json_output=json_output)
    if operators:
        return _profiled(artifact, target, profile, json_output=json_output)
    recording = None
    if record is not None:
        from edgeprune.measure.recording import Recording

        recording = Recording()
    with open_progress() as progress:
        described = manifest.read(artifact)
        measurement = measure(
            described,
            target=target or "local",
            profile=profile or "host",
            progress=progress,
            energy=energy or any(limit.figure == "energy" for limit in budget.limits),
            sustained_s=None if sustained is None else units.parse_duration(sustained) / 1000,
            recording=recording,
        )
    if recording is not None and record is not None:
        recording.write(record)
    return _told(measurement, described, budget, json_output=json_output)


def _check_options(
    artifact: Path | None, against: Path | None, sustained: str | None, record: Path | None, replay: Path | None
) -> None:
    """What goes with what."""
    if (artifact is None) == (replay is None):
        raise UsageError(
            "give a file to measure, or --replay a recording", hint="edgeprune measure --help says what is possible"
        )
    if replay is not None and (against or sustained or record):
        raise UsageError("--replay measures nothing: it goes with limits only", hint="leave the other options out")
    if against is not None and (sustained or record):
        raise UsageError("--against goes with neither --sustained nor --record", hint="measure each file on its own")


def _told(measurement: Measurement, described: Artifact | None, budget: Budget, *, json_output: bool) -> int:
    """Print it; the exit code."""
    from edgeprune.records import codec
    from edgeprune.records.figures import figures_of
    from edgeprune.records.measurement import Outcome

    figures = figures_of(measurement, described, None)
    check = budget.check(figures, {})
    if json_output:
        emit({**codec.to_json(measurement), "check": codec.to_json(check)})
    else:
        for line in _measurement_lines(measurement, figures, check):
            click.echo(line)
    if measurement.outcome is Outcome.OOM:
        return 1  # that it does not fit is the answer, and not a failed attempt
    if not measurement.outcome.is_result:
        return 3
    return {"met": 0, "violated": 1, "unknown": 3}[check.state.value]


def _compared(artifact: Path, against: Path, target: str | None, profile: str | None, *, json_output: bool) -> int:
    from edgeprune.pipeline.compare import compare
    from edgeprune.records.measurement import Outcome

    with open_progress() as progress:
        found = compare(artifact, against, target=target or "local", profile=profile or "host", progress=progress)
    if json_output:
        emit(found.to_json())
    else:
        for line in _comparison_lines(found, artifact.name, against.name):
            click.echo(line)
    if found.outcome is Outcome.OOM:
        return 1
    return 0 if found.outcome.is_result else 3


def _profiled(artifact: Path, target: str | None, profile: str | None, *, json_output: bool) -> int:
    from edgeprune.pipeline.operator_times import operator_times
    from edgeprune.records.measurement import Outcome

    with open_progress() as progress:
        found = operator_times(artifact, target=target or "local", profile=profile or "host", progress=progress)
    if json_output:
        emit(found.to_json())
    else:
        for line in _operator_lines(found):
            click.echo(line)
    if found.outcome is Outcome.OOM:
        return 1
    return 0 if found.outcome.is_result else 3


def _operator_lines(found: RuntimeProfile) -> list[str]:
    from edgeprune.report.measured_on import of_provenance
    from edgeprune.units import format_duration

    if found.plain_ns is None or found.profiled_ns is None:
        return [f"outcome: {found.outcome.value}: {found.message}"]
    whole = sum(node.ns for node in found.nodes) or 1.0
    plain, profiled = (format_duration(ns * 1e-6) for ns in (found.plain_ns, found.profiled_ns))
    lines = [f"one run: p50 {plain}, {profiled} under the profiler ({found.runs} runs)"]
    if not found.nodes:
        lines.append("no operator is left: the runtime has worked everything out beforehand")
    shown = [node for node in found.nodes if node.ns >= _SHOWN * whole]
    longest = max((len(node.op_type) for node in shown), default=0)
    for node in shown:
        shapes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in node.output_shapes)
        name = "".join(letter if letter.isprintable() else " " for letter in node.name)[:_NAME]
        time = format_duration(node.ns * 1e-6)
        lines.append(f"{node.ns / whole:6.1%}  {time:>9}  {node.op_type:{longest}}  {name} -> {shapes}")
    if len(shown) < len(found.nodes):
        rest = 1 - sum(node.ns for node in shown) / whole
        lines.append(f"{rest:6.1%}  {len(found.nodes) - len(shown)} operators of less than {_SHOWN:.1%} each")
    if found.nodes:
        lines.append("together: " + ", ".join(f"{name} {ns / whole:.1%}" for name, ns in found.by_type().items()))
    if found.provenance is not None:
        lines.append(of_provenance(found.provenance))
    return lines + [f"warning: {warning}" for warning in found.warnings]


def _comparison_lines(found: Comparison, name: str, other: str) -> list[str]:
    from edgeprune import units
    from edgeprune.report.measured_on import of_provenance

    if found.ratio is None or found.p50_ms is None:
        return [f"outcome: {found.outcome.value}: {found.message}"]
    lines = [f"{name} against {other}: {found.verdict}"]
    lines.append(f"latency ratio: {found.ratio:.3f} (95 %: {found.lower:.3f} to {found.upper:.3f})")
    lines += [f"{n}: p50 {units.format_duration(value)}" for n, value in zip((name, other), found.p50_ms, strict=True)]
    lines.append(f"{sum(len(pairs) for pairs in found.pairs_ms)} pairs of blocks in {len(found.pairs_ms)} processes")
    if found.provenance is not None:
        lines.append(of_provenance(found.provenance))
    return lines + [f"warning: {warning}" for warning in found.warnings]


def _measurement_lines(measurement: Measurement, figures: Figures, check: BudgetCheck) -> list[str]:
    from edgeprune.records.figures import format_figure
    from edgeprune.report.measured_on import of_energy, of_provenance
    from edgeprune.report.text import UP_TO

    lines = [f"outcome: {measurement.outcome.value}" + (f": {measurement.message}" if measurement.message else "")]
    for name, figure in figures.items():
        if figure.value is None:
            lines.append(f"{name}: missing: {figure.missing}")
            continue
        text = format_figure(name, figure.value)
        upper = text if figure.upper is None else format_figure(name, figure.upper, figure.value)
        lines.append(f"{name}: {text}" + (f" (up to {upper})" if upper != text else ""))
    if any("(up to " in line for line in lines):
        lines.append(UP_TO)
    if measurement.provenance is not None:
        lines.append(of_provenance(measurement.provenance))
    if measurement.energy is not None:
        lines.append(of_energy(measurement.energy))
    lines += [_window_line(window) for window in measurement.sustained]
    lines += [f"warning: {warning}" for warning in measurement.warnings]
    for entry in check.limits:
        found = figures.get(entry.limit.figure)
        said = found is not None and found.missing == entry.reason  # above
        reason = f": {'missing' if said else entry.reason}" if entry.reason else ""
        lines.append(f"limit {entry.limit.metric} {entry.limit.text}: {entry.state.value}{reason}")
    return lines


def _window_line(window: Window) -> str:
    from edgeprune import units

    parts = [f"p50 {units.format_duration(window.p50_ms)}", f"{window.runs} runs"]
    if window.p95_ms is not None:
        parts.insert(1, f"p95 {units.format_duration(window.p95_ms)}")
    if window.temperature_c is not None:
        parts.append(f"{window.temperature_c:.0f} °C")
    if window.frequency_khz is not None:
        parts.append(f"{window.frequency_khz / 1000:.0f} MHz")
    if window.throttled:
        parts.append("throttled")
    return f"from {window.start_s:.0f} s: {', '.join(parts)}"
