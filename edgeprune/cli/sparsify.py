"""Fine-pruning: single weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import as_json, device_options, emit
from edgeprune.cli.progress import open_progress
from edgeprune.cli.source import SOURCE, captured_from

if TYPE_CHECKING:
    from edgeprune.sparsity.criteria import Criterion
    from edgeprune.sparsity.patterns import Scope

__all__ = ["sparsify_command"]


@click.command("sparsify", epilog=SOURCE, short_help="Make single weights zero, and measure what it is worth.")
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The sparse model, a .pt2 file.")
@click.option(
    "--pattern",
    default="unstructured",
    show_default=True,
    help='unstructured, 2:4 (any N:M), or "block 1x4" (outputs x inputs).',
)
@click.option("--ratio", type=click.FloatRange(0, 1, max_open=True), help="The share of zeros; not for N:M.")
@click.option("--criterion", type=click.Choice(["magnitude", "lamp", "wanda"]), default="magnitude", show_default=True)
@click.option(
    "--scope",
    type=click.Choice(["layer", "global", "row"]),
    help="Weights compete within their layer, with all others, or within the row of an output; by default as suits "
    "the criterion.",
)
@click.option("--ignore", multiple=True, metavar="PATTERN", help='Weights that stay dense: "fc.*"; repeatable.')
@click.option("--epochs", type=click.IntRange(min=0), default=0, help="Fine-tune with the zeros held.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--onnx", type=click.Path(path_type=Path), help="Export the sparse model there as well.")
@click.option(
    "--compressed",
    is_flag=True,
    help="Store that file as .sparse, too, without its zeros; edgeprune/export/sparse_loader.py loads it anywhere.",
)
@device_options
@as_json
def sparsify_command(
    *,
    source: str,
    output: Path,
    pattern: str,
    ratio: float | None,
    criterion: Criterion,
    scope: Scope | None,
    ignore: tuple[str, ...],
    epochs: int,
    seed: int,
    onnx: Path | None,
    compressed: bool,
    target: str | None,
    profile: str | None,
    json_output: bool,
) -> None:
    """Make single weights of SOURCE zero and save it with plain zeros.

    With --target dense and sparse model are compared on that device: most runtimes gain nothing from zeros, and this
    says so. What shrinks is the compressed file.
    """
    from edgeprune.pipeline.prune import check_request
    from edgeprune.pipeline.sparsify import sparsify
    from edgeprune.sparsity.masks import check_pattern

    check_pattern(pattern, ratio, scope)
    check_request(output, onnx, importance="l2", round_to=1)
    with open_progress() as progress:
        with progress.step("capturing the model"):
            captured, task = captured_from(source, output)
        report = sparsify(
            captured,
            output,
            pattern=pattern,
            ratio=ratio,
            criterion=criterion,
            scope=scope,
            ignored=ignore,
            epochs=epochs,
            seed=seed,
            export_to=onnx,
            compressed=compressed,
            target=target or ("local" if profile else None),
            profile=profile or "host",
            task=task,
            progress=progress,
        )
    if json_output:
        emit(report)
        return
    for line in _lines(report):
        click.echo(line)


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [f"{name}: {share:.1%} zero" for name, share in report["zeros"].items()]
    lines += [f"{name}: left dense" for name in report["left_dense"]]
    if report["left_dense"]:
        lines.append("left dense is what --ignore names, and what no convolution or linear layer alone multiplies with")
    part = f"all together: {report['zero_share']:.1%} zero"
    if report["left_dense"]:
        part = f"{part} of the weights that take part, {report['zero_share_of_all']:.1%} of all"
    lines.append(f"{part}, candidate {report['candidate']}")
    if report["accuracy"] is not None:
        lines.append("accuracy: " + ", ".join(f"{kind} {value:.4g}" for kind, value in report["accuracy"].items()))
    lines += [f"written: {path}" for path in (report["output"], report["artifact"]) if path]
    if (packed := report["compressed"]) is not None:
        file, xz = packed["model_bytes"]["file"], packed["model_bytes"]["xz"]
        lines.append(f"written: {packed['path']}: {packed['size_bytes']} bytes (of {file}; {xz} by xz alone)")
    value = report["worth"]
    if value is None:
        return [*lines, "what it is worth on a device was not measured (--target local)"]
    for kind, (dense, sparse) in value["size_bytes"].items():
        name = "file" if kind == "file" else f"file by {kind}"
        lines.append(f"{name}: {dense} -> {sparse} bytes ({sparse / dense:.2f}x)")
    if value["verdict"] is None:
        return [*lines, f"latency not measured: {value['message']}"]
    (dense_ms, sparse_ms), (low, high) = value["latency_ms"], value["ratio_bounds"]
    lines.append(
        f"latency p50: {dense_ms:.3f} -> {sparse_ms:.3f} ms "
        f"({value['ratio']:.2f}x, between {low:.2f}x and {high:.2f}x): {value['verdict']}"
    )
    return lines
