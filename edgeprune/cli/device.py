"""Commands on devices: list, show, schema, probe, trust; setup, remove and check are beside."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.main import LazyGroup
from edgeprune.cli.options import as_json, emit
from edgeprune.errors import HostKeyError, UsageError

if TYPE_CHECKING:
    from edgeprune.pipeline.device import HostKeyOffer

__all__ = ["device_group"]


_BESIDE = {name: f"edgeprune.cli.device_setup:{name}_command" for name in ("setup", "check", "remove")}


@click.group("device", cls=LazyGroup, lazy=_BESIDE)
def device_group() -> None:
    """What kinds of device are known, what one of them says of itself, and a runtime for one that has none."""


@device_group.command("list")
@as_json
def list_command(json_output: bool) -> None:
    """Name the device profiles."""
    from edgeprune.records.profile import load_profile, profile_names

    profiles = [load_profile(name) for name in profile_names()]
    if json_output:
        emit({"profiles": [{"name": p.name, "title": p.title, "soc": p.soc} for p in profiles]})
        return
    width = max(len(profile.name) for profile in profiles)
    for profile in profiles:
        click.echo(f"{profile.name.ljust(width)}  {profile.title}")


@device_group.command("show")
@click.argument("profile")
@as_json
def show_command(profile: str, json_output: bool) -> None:
    """Show a device profile: a name, or a YAML file."""
    from edgeprune.records.profile import load_profile

    data = load_profile(profile).to_json()
    if json_output:
        emit(data)
        return
    for line in _lines(data):
        click.echo(line)


@device_group.command("schema")
@as_json
def schema_command(json_output: bool) -> None:  # noqa: ARG001  it is JSON either way
    """Print the JSON Schema of device profiles, for an editor."""
    from edgeprune.records.profile_schema import profile_schema

    emit(profile_schema())


@device_group.command("probe")
@click.argument("target", default="local")
@click.option("--profile", default="host", show_default=True, help="What the device is compared with.")
@as_json
def probe_command(target: str, profile: str, json_output: bool) -> int:
    """Reach TARGET and show what it is, what it can run, and its present conditions."""
    from edgeprune.cli.progress import open_progress
    from edgeprune.pipeline.device import probe

    with open_progress() as progress:
        seen = probe(target, profile, progress=progress)
    if json_output:
        emit(seen)
    else:
        for line in _lines(seen):
            click.echo(line)
    return 0 if seen["can_measure"] else 3


@device_group.command("trust")
@click.argument("target")
@click.option("--fingerprint", metavar="SHA256:...", help="Trust without a question, if it is this key.")
@click.option("--known-hosts", type=click.Path(path_type=Path), help="The file to write it to; the user's by default.")
@as_json
def trust_command(target: str, fingerprint: str | None, known_hosts: Path | None, json_output: bool) -> int:
    """Show the host key of TARGET (ssh://user@host:port) and, once you say yes, remember it."""
    from edgeprune.pipeline.device import trust

    def confirm(offer: HostKeyOffer) -> bool:
        if fingerprint is not None:
            if fingerprint != offer.fingerprint:
                raise HostKeyError(
                    f"{offer.host} offers {offer.algorithm} {offer.fingerprint}, not {fingerprint}",
                    hint="the device was set up anew, or something else answers in its place",
                )
            return True
        for line in _offer_lines(offer):
            click.echo(line, err=True)
        if not sys.stdin.isatty():
            raise UsageError(
                "nobody is there to confirm the fingerprint",
                hint=f"compare it with the device's own, then: edgeprune device trust {shlex.quote(target)} "
                f"--fingerprint {offer.fingerprint}",
            )
        return click.confirm("Is that the fingerprint that the device itself shows?", err=True)

    offer = trust(target, confirm, known_hosts=known_hosts)
    trusted = offer.written or offer.state == "known"
    if json_output:
        emit({**offer.to_json(), "trusted": trusted})
    elif offer.written:
        click.echo(f"{offer.host}: {offer.algorithm} {offer.fingerprint} is trusted now (in {offer.known_hosts})")
    elif trusted:
        click.echo(f"{offer.host}: {offer.algorithm} {offer.fingerprint} is trusted already")
    else:
        click.echo(f"{offer.host} is not trusted", err=True)
    return 0 if trusted else 3


def _offer_lines(offer: HostKeyOffer) -> list[str]:
    lines = [f"{offer.host} offers {offer.algorithm} {offer.fingerprint}"]
    if offer.state == "changed":
        lines.append("THE KEY HAS CHANGED. Until now it was " + ", ".join(offer.known))
    lines.append("On the device, `ssh-keygen -lf` on its public host keys in /etc/ssh shows the fingerprints.")
    return lines


def _lines(data: Mapping[str, Any], indent: str = "") -> list[str]:
    """Nested data as indented `name: value` lines; what is empty is left out."""
    lines: list[str] = []
    for name, value in data.items():
        if value is None or (isinstance(value, (str, list, tuple, dict)) and not value):
            continue
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            lines.append(f"{indent}{name}:")
            for item in value:
                inner = _lines(item, indent + "    ")
                lines += [f"{indent}  - {inner[0].strip()}", *inner[1:]] if inner else []
        elif isinstance(value, (list, tuple)) and any(" " in str(item) for item in value):
            lines += [f"{indent}{name}:", *(f"{indent}  - {item}" for item in value)]
        elif isinstance(value, (list, tuple)):
            lines.append(f"{indent}{name}: {', '.join(str(item) for item in value)}")
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines
