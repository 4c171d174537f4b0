"""Commands that change or judge a device: setup, remove, check."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.cli.options import as_json, emit

__all__ = ["check_command", "remove_command", "setup_command"]

_profile = click.option("--profile", default="host", show_default=True, help="The device profile.")


@click.command("setup")
@click.argument("target")
@click.option("--runtime", metavar="NAME[==VERSION]", help="What to install; by default the first that fits.")
@click.option(
    "--wheelhouse",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder with the wheels, in place of the package index.",
)
@_profile
@as_json
def setup_command(target: str, runtime: str | None, wheelhouse: Path | None, profile: str, json_output: bool) -> None:
    """Bring a runtime onto TARGET and prove that it computes.

    The device needs Python 3, but neither internet nor pip nor root: the wheels are found here, sent over, and unpacked
    into ~/.cache/edgeprune. A setup that was interrupted goes on where it was.
    """
    from edgeprune.cli.progress import open_progress
    from edgeprune.pipeline.device_setup import setup

    with open_progress() as progress:
        done = setup(target, runtime=runtime, wheelhouse=wheelhouse, profile=profile, progress=progress)
    if json_output:
        emit(done.to_json())
        return
    how = "is installed" if done.installed_now else "was installed already"
    click.echo(f"{done.target}: {done.runtime} {done.version} {how} in {done.folder}, and computes right")


@click.command("remove")
@click.argument("target")
@_profile
@as_json
def remove_command(target: str, profile: str, json_output: bool) -> None:
    """Take away from TARGET all that edgeprune has put there."""
    from edgeprune.cli.progress import open_progress
    from edgeprune.pipeline.device_setup import remove

    with open_progress() as progress:
        done = remove(target, profile=profile, progress=progress)
    if json_output:
        emit(done)
    elif done["removed"]:
        click.echo(f"{done['target']}: {done['folder']} is removed")
    else:
        click.echo(f"{done['target']}: there was nothing to remove")


@click.command("check")
@click.argument("target", default="local")
@_profile
@as_json
def check_command(target: str, profile: str, json_output: bool) -> int:
    """Say whether TARGET can be measured on.

    Reachable, lock, runtime, space, clock, heat, swap, load: what is wrong comes with what mends it. Exit code 3 where
    something keeps it from being measured on.
    """
    from edgeprune.cli.progress import open_progress
    from edgeprune.pipeline.device_check import check

    with open_progress() as progress:
        findings = check(target, profile=profile, progress=progress)
    healthy = all(finding.state != "failed" for finding in findings)
    if json_output:
        emit({"target": target, "healthy": healthy, "findings": [finding.to_json() for finding in findings]})
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            click.echo(f"{finding.state.ljust(7)}  {finding.name.ljust(width)}  {finding.message}")
            if finding.fix:
                click.echo(f"{' ' * (width + 11)}{finding.fix}")
    return 0 if healthy else 3
