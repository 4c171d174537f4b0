"""`edgeprune diff`: two models side by side."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.cli.named import named
from edgeprune.cli.options import as_json, emit

__all__ = ["diff_command"]

_WHAT = (
    "Each is a run's folder, a project (its latest run), an exported file with its manifest, a packaged folder, or "
    "what `check --json` wrote."
)


@click.command("diff", epilog=_WHAT, short_help="Show two runs, files or packages side by side.")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@as_json
def diff_command(a: Path, b: Path, json_output: bool) -> None:
    """Show the figures of A and B side by side, as recorded, and in what else the two differ.

    Where the intervals of a figure say so, there is "no difference".
    """
    from dataclasses import replace

    from edgeprune.pipeline.diff import diff
    from edgeprune.report.diff import render

    found = replace(diff(named(a)[0], named(b)[0]), a=str(a), b=str(b))
    if json_output:
        emit(found.to_json())
    else:
        click.echo(render(found), nl=False)
