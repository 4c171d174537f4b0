"""Commands on a model: prune, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import as_json, emit
from edgeprune.cli.progress import open_progress
from edgeprune.cli.source import SOURCE, captured_from
from edgeprune.errors import UsageError
from edgeprune.units import format_points

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.graph.selection import Compare
    from edgeprune.pipeline.export_int8 import Int8

__all__ = ["export_command", "prune_command"]


@click.command("prune", epilog=SOURCE, short_help="Prune a model by a ratio, without a device.")
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The pruned model, a .pt2 file.")
@click.option(
    "--ratio",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.5,
    show_default=True,
    help="The share of the channels that is removed.",
)
@click.option(
    "--importance",
    default="l2",
    show_default=True,
    help="apoz, bn_scale, fisher, fpgm, l1, l2, lamp, random, taylor, wanda, or a plug-in; with parameters "
    "l1:members=all,reduce=max,normalise=none.",
)
@click.option(
    "--compare",
    type=click.Choice(["layer", "global", "isomorphic"]),
    default="layer",
    show_default=True,
    help="Channels compete within their layer, with all others, or with those of layers of the same structure.",
)
@click.option("--ignore", multiple=True, metavar="PATTERN", help='Layers that keep their outputs: "*.fc*"; repeatable.')
@click.option("--min-width", type=click.IntRange(min=1), default=1, show_default=True, help="Channels that stay.")
@click.option("--min-share", type=click.FloatRange(0, 1), default=0.0, help="Share of each layer that stays.")
@click.option(
    "--round-to",
    multiple=True,
    metavar="[PATTERN=]N",
    help="Widths are multiples of so many channels; for some layers: stage1.*=16. Repeatable, the first that fits.",
)
@click.option("--drop", multiple=True, metavar="BLOCK", help="Drop a residual block (see `explain`); repeatable.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Examples without labels: .npz with an array per input, or .npy. The fidelity to the dense outputs is told.",
)
@click.option(
    "--reconstruct",
    is_flag=True,
    help="Fit the layers that lost inputs to the dense outputs, on the calibration data or the task's batches.",
)
@click.option("--onnx", type=click.Path(path_type=Path), help="Export the pruned model there as well.")
@click.option("--groups", is_flag=True, help="Only show the channel groups, and why frozen ones are.")
@as_json
def prune_command(
    *,
    source: str,
    output: Path | None,
    ratio: float,
    importance: str,
    compare: Compare,
    ignore: tuple[str, ...],
    min_width: int,
    min_share: float,
    round_to: tuple[str, ...],
    drop: tuple[str, ...],
    seed: int,
    calibration: Path | None,
    reconstruct: bool,
    onnx: Path | None,
    groups: bool,
    json_output: bool,
) -> None:
    """Remove a share of the channels of SOURCE, verify the result, and save it; nothing is trained or measured.

    With --reconstruct the layers that lost inputs are fitted to the dense network's outputs; labels are not needed.
    """
    from edgeprune.pipeline.prune import check_request, prune

    multiples = _multiples(round_to)
    if output is None and not groups:
        raise UsageError("where shall the pruned model go?", hint="name a file: --output small.pt2")
    if output is not None and not groups:
        check_request(output, onnx, importance=importance, round_to=multiples, calibration=calibration)
    with open_progress() as progress:
        with progress.step("capturing the model"):
            captured, task = captured_from(source, output, onnx)
        if groups or output is None:
            report = _groups(captured)
        else:
            report = prune(
                captured,
                output,
                ratio=ratio,
                importance=importance,
                compare=compare,
                ignored=ignore,
                min_width=min_width,
                min_share=min_share,
                round_to=multiples,
                seed=seed,
                dropped_blocks=drop,
                calibration=calibration,
                reconstruct=reconstruct,
                export_to=onnx,
                task=task,
                progress=progress,
            )
    if "dropped_blocks" in report and ratio > 0 and _nothing_removed(report):
        why = _what_keeps(multiples, min_width, min_share, bool(ignore)) if report["groups"] else "no group is prunable"
        click.echo(f"warning: nothing was removed at the ratio {ratio:g}: {why}", err=True)
    if json_output:
        emit(report)
        return
    for line in _group_lines(report) if groups else _prune_lines(report):
        click.echo(line)


@click.command("export", epilog=SOURCE, short_help="Export a model, checked in its runtime.")
@click.argument("source")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "file_format",
    metavar="FORMAT",
    help="What the file is, where its name does not say it, or with parameters: tflite:layout=nhwc.",
)
@click.option("--quantize", type=click.Choice(["int8"]), help="Write it in int8.")
@click.option("--scheme", metavar="NAME", help="Of int8: per-tensor or per-channel; the format's own by default.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For int8, examples of the inputs: .npz with an array per input, or .npy. A task has its own.",
)
@as_json
def export_command(
    *,
    source: str,
    output: Path,
    file_format: str | None,
    quantize: str | None,
    scheme: str | None,
    calibration: Path | None,
    json_output: bool,
) -> None:
    """Write SOURCE as a file that a runtime executes (OUTPUT), and check it in that runtime against the model.

    In int8 the float file is checked, and what int8 adds is told: signal to quantisation noise, and with a task its
    metric of both.
    """
    from edgeprune.export.manifest import manifest_path
    from edgeprune.pipeline.export import check_output, export, format_of

    if quantize is None and (scheme or calibration):
        raise UsageError("--scheme and --calibration are for int8", hint="add --quantize int8")
    file_format = file_format or format_of(output)
    check_output(output, file_format)
    with open_progress() as progress:
        with progress.step("capturing the model"):
            captured, task = captured_from(source, output)
        if quantize is not None:
            from edgeprune.pipeline.export_int8 import export_int8

            int8 = export_int8(
                captured,
                output,
                format=file_format,
                scheme=scheme,
                calibration=calibration,
                task=task,
                progress=progress,
            )
            report: dict[str, Any] = {"int8": int8.to_json()}
            lines = _int8_lines(int8)
            artifact = int8.artifact
        else:
            with progress.step("exporting"):
                artifact = export(captured, output, format=file_format)
            difference = artifact.provenance["parity_error"]
            report, lines = {}, [f"worst relative difference to the model {difference:.2g}"]
    manifest = manifest_path(artifact.path)
    if json_output:
        emit(
            {
                "artifact": str(artifact.path),
                "manifest": str(manifest),
                "format": artifact.format,
                "sha256": artifact.sha256,
                "size_bytes": artifact.size_bytes,
                "provenance": dict(artifact.provenance),
                **report,
            }
        )
        return
    click.echo(f"{artifact.path}: {artifact.size_bytes} bytes, sha256 {artifact.sha256}")
    for line in lines:
        click.echo(f"{manifest}: {line}" if quantize is None else line)


def _int8_lines(int8: Int8) -> list[str]:
    noise = "no noise" if int8.sqnr_db is None else f"signal to quantisation noise {int8.sqnr_db:.1f} dB"
    share = int8.artifact.size_bytes / int8.float_size_bytes
    lines = [f"int8 {int8.scheme}, calibrated on {int8.calibrated_on}: {noise}, {share:.1%} of the float file's size"]
    if int8.accuracy is not None and int8.float_accuracy is not None:
        change = format_points(int8.accuracy - int8.float_accuracy)
        lines.append(f"metric: {int8.float_accuracy:.2%} in float, {int8.accuracy:.2%} in int8 ({change})")
    return lines


def _multiples(options: tuple[str, ...]) -> dict[str, int]:
    """Of "stage1.*=16" and "8" the multiples by pattern; a bare number is for what no pattern fits."""
    multiples: dict[str, int] = {}
    for option in sorted(options, key=lambda option: "=" not in option):
        pattern, _, number = option.rpartition("=")
        if not (number.isdecimal() and int(number)):
            hint = "give a number of channels from 1, or one for some layers: --round-to 8, --round-to 'stage1.*=16'"
            raise UsageError(f"--round-to {option!r} is no multiple", hint=hint)
        multiples.setdefault(pattern or "*", int(number))
    return multiples


def _groups(captured: Captured) -> dict[str, Any]:
    return {
        "groups": [{"name": g.name, "units": g.units, "members": len(g.members)} for g in captured.groups],
        "frozen": [{"name": g.name, "units": g.units, "reason": g.frozen} for g in captured.frozen],
    }


def _group_lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{g['name']}: {g['units']} units, {g['members']} tensor dimensions" for g in report["groups"]]
    return lines + [f"{g['name']}: {g['units']} units, frozen: {g['reason']}" for g in report["frozen"]]


def _errors(layer: dict[str, Any]) -> str:
    return f"error {layer['error_before']:.3g} -> {layer['error_after']:.3g} of the dense output's variation"


def _nothing_removed(report: dict[str, Any]) -> bool:
    return not report["dropped_blocks"] and all(group["kept"] == group["units"] for group in report["groups"])


def _what_keeps(round_to: dict[str, int], min_width: int, min_share: float, ignoring: bool) -> str:
    """The options that may have kept every channel."""
    given = {
        "--round-to": any(channels != 1 for channels in round_to.values()),
        "--min-width": min_width > 1,
        "--min-share": min_share > 0,
        "--ignore": ignoring,
    }
    options = [option for option, used in given.items() if used]
    return (
        f"{', '.join(options)} kept every channel" if options else "the ratio is less than half a unit of every group"
    )


def _prune_lines(report: dict[str, Any]) -> list[str]:
    def change(name: str) -> str:
        before, after = report[name]["before"], report[name]["after"]
        return f"{before} -> {after} ({after / before:.1%})" if before else f"{before} -> {after}"

    lines = [f"{g['name']}: {g['units']} -> {g['kept']}" for g in report["groups"]]
    lines += [f"block {name}: dropped" for name in report["dropped_blocks"]]
    lines += [f"{name}: {change(name)}" for name in ("params", "macs", "peak_activation_bytes")]
    if report["macs_leave_out"]:
        lines.append(f"macs leave out what these operators multiply: {', '.join(report['macs_leave_out'])}")
    if report["verification_error"] is not None:
        lines.append(f"verified: relative difference to the reference {report['verification_error']:.2g}")
    if report["reconstruction"] is not None:
        for layer in report["reconstruction"]["layers"]:
            outcome = f"no, {layer['note']}" if layer["note"] else _errors(layer)
            lines.append(f"reconstructed {layer['name']}: {outcome}")
    lines += _fidelity_lines(report["fidelity"])
    lines.append(f"wrote {report['output']}")
    if report["artifact"]:
        lines.append(f"wrote {report['artifact']} (relative difference to the model {report['parity_error']:.2g})")
    return lines


def _fidelity_lines(report: dict[str, Any] | None) -> list[str]:
    if report is None:
        return []
    held_back = " that nothing was fitted to" if report["held_back"] else ""
    lines = [f"fidelity to the dense outputs, on {report['examples']} examples{held_back}:"]
    for position, output in enumerate(report["pruned"]):
        versions = [output, *(report["reconstructed"] or ())[position : position + 1]]
        for figure, form in (("agreement", ".1%"), ("relative_error", ".3g")):
            values = [version[figure] for version in versions]
            if any(value is not None for value in values):
                told = " -> ".join("undefined" if value is None else format(value, form) for value in values)
                lines.append(f"output {output['name']}: {figure.replace('_', ' ')} {told}")
    return lines
