"""Commands that look at a model: explain, verify."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from edgeprune.cli.options import as_json, emit
from edgeprune.cli.progress import open_progress
from edgeprune.cli.source import SOURCE, captured_from
from edgeprune.errors import UsageError

__all__ = ["explain_command", "verify_command"]


@click.command("explain", epilog=SOURCE, short_help="Show what can be pruned, and why the rest cannot.")
@click.argument("source")
@as_json
def explain_command(source: str, json_output: bool) -> None:
    """Show the channel groups of SOURCE, what is frozen and why, and the blocks that can be dropped."""
    from edgeprune.pipeline.explain import explain

    with open_progress() as progress, progress.step("capturing the model"):
        captured, _ = captured_from(source)
    report = explain(captured)
    if json_output:
        emit(report)
        return
    for line in _explain_lines(report):
        click.echo(line)


@click.command("verify", short_help="Check a pruned model against the dense one, or a package, or a run.")
@click.argument("dense", type=click.Path(path_type=Path), metavar="DENSE|DIR")
@click.argument("pruned", type=click.Path(path_type=Path), required=False)
@click.option("--trained", is_flag=True, help="PRUNED was trained: check its graph, with the weights of DENSE.")
@click.option("--key", type=click.Path(path_type=Path), metavar="PEM", help="Check the signature of a package by it.")
@as_json
def verify_command(
    *, dense: Path, pruned: Path | None, trained: bool, key: Path | None, json_output: bool
) -> int | None:
    """Prove that PRUNED (.pt2) computes what DENSE (.pt2) does without what was removed.

    Given one folder DIR, a package or a run: check that it is what it was made as, its sums, signature, manifest or
    lock, and that the artifact of a run computes what the saved network does. Exit code 5 where not.
    """
    if pruned is None:
        if trained:
            raise UsageError(
                "--trained is about two .pt2 files", hint="edgeprune verify DENSE.pt2 PRUNED.pt2 --trained"
            )
        return _verified_folder(dense, key, json_output=json_output)
    if key is not None:
        raise UsageError("--key is about packages", hint="edgeprune verify DIR --key public.pem")
    from edgeprune.pipeline.verify import verify

    with open_progress() as progress, progress.step("verifying"):
        found = verify(dense, pruned, trained=trained)
    checked = found.verification
    if json_output:
        emit(
            {
                "candidate": found.candidate.to_json(),
                "relative_error": checked.relative_error,
                "other_batch": checked.other_batch,
                "other_batch_error": checked.other_batch_error,
                "tolerance": checked.tolerance,
                "dtype": checked.dtype,
                "trained": list(found.trained),
            }
        )
        return None
    other = "" if checked.other_batch is None else f", {checked.other_batch_error:.2g} at batch {checked.other_batch},"
    click.echo(
        f"{pruned} is {dense} without what candidate {found.candidate.id} removes: relative difference "
        f"{checked.relative_error:.2g}{other} in {checked.dtype} (allowed: {checked.tolerance:.0e})"
    )
    if found.trained:
        click.echo(f"its graph was checked; {len(found.trained)} of its weights have been trained")
    return None


def _verified_folder(path: Path, key: Path | None, *, json_output: bool) -> int:
    from edgeprune.cli.named import named
    from edgeprune.package.write import archive_suffix
    from edgeprune.pipeline.integrity import verify_folder

    folder, _ = named(path)
    if folder.is_file() and (suffix := archive_suffix(folder)) is not None:
        unpack = shlex.join((*(("unzip",) if suffix == ".zip" else ("tar", "-xf")), str(folder)))
        raise UsageError(f"{folder} is an archive", hint=f"unpack it first: {unpack}, and name the folder in it")
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder", hint="name a package's or a run's folder, or two files: DENSE.pt2 PRUNED.pt2"
        )
    with open_progress() as progress:
        findings = verify_folder(folder, key=key, progress=progress)
    failed = any(finding.state == "failed" for finding in findings)
    if json_output:
        emit({"folder": str(folder), "ok": not failed, "findings": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            state = finding.state.upper() if finding.state == "failed" else finding.state
            click.echo(f"{state}: {finding.name}: {finding.message}")
    return 5 if failed else 0


def _explain_lines(report: dict[str, Any]) -> list[str]:
    reachable = report["reachable_share"]
    reach = f"{reachable['groups']:.1%} of them, with blocks {reachable['groups_and_blocks']:.1%}"
    lines = [f"{report['params']} parameters; channel groups reach {reach}"]
    for group in report["groups"]:
        lines.append(f"{group['name']}: {group['units']} units, {group['params_share']:.1%} of the parameters")
        lines += [f"    {m['parameter']} dim {m['dim']} ({m['role']})" for m in group["members"]]
    lines += [f"frozen {g['name']}: {g['units']} units: {g['reason']}" for g in report["frozen"]]
    lines += [
        f"block {b['name']}: {b['params']} parameters ({b['params_share']:.1%}), {b['macs_share']:.1%} of the "
        "multiply-accumulates"
        for b in report["blocks"]
    ]
    return lines
