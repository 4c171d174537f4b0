"""Is all there that edgeprune needs? And the environments that its converters live in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import as_json, device_options, emit

if TYPE_CHECKING:
    from edgeprune.pipeline.doctor import Diagnosis

__all__ = ["doctor_command"]


@click.command("doctor", short_help="Look whether all is there, here and on a device; with each fix.")
@device_options
@click.option(
    "--install",
    metavar="NAME",
    multiple=True,
    help="Make the environment that a converter lives in, like tflite; repeatable. Nothing else is looked at.",
)
@as_json
def doctor_command(target: str | None, profile: str | None, install: tuple[str, ...], json_output: bool) -> int:
    """Look at packages, extras, runtimes, permissions and space, and with --target at a device.

    What is wrong or could be there comes with the command that mends or brings it. Exit code 3 where something that is
    needed, or was asked for, cannot be used.
    """
    from edgeprune.cli.progress import open_progress

    if install:
        return _install(install, json_output=json_output)
    from edgeprune.pipeline.doctor import examine

    with open_progress() as progress:
        found = examine(target, profile=profile or "host", progress=progress)
    if json_output:
        emit(found.to_json())
    else:
        for line in _lines(found):
            click.echo(line)
    return 0 if found.healthy else 3


def _install(names: tuple[str, ...], *, json_output: bool) -> int:
    from edgeprune.cli.progress import open_progress
    from edgeprune.export.environment import environment
    from edgeprune.export.environment_setup import install

    for name in names:
        environment(name)  # all of them are known, before hours are spent on the first
    done = []
    with open_progress() as progress:
        for name in names:
            made, is_new = install(name, progress=progress)
            done.append(
                {"name": name, "python": str(made.python), "versions": dict(made.versions), "installed": is_new}
            )
            if not json_output:
                versions = ", ".join(f"{each} {version}" for each, version in made.versions.items())
                click.echo(f"{name}: {versions} {'is installed' if is_new else 'was installed already'}: {made.python}")
    if json_output:
        emit({"environments": done})
    return 0


def _lines(found: Diagnosis) -> list[str]:
    lines: list[str] = []
    width = max(len(finding.name) for section in found.sections for finding in section.findings)
    for section in found.sections:
        lines += ["", section.name] if lines else [section.name]
        for finding in section.findings:
            lines.append(f"  {finding.state.ljust(7)}  {finding.name.ljust(width)}  {finding.message}")
            if finding.fix:
                lines.append(f"{' ' * (width + 13)}{finding.fix}")
    return lines
