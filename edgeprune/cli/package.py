"""What runs chose, as sources and packages for a build system."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import as_json, emit
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.pipeline.package import Packaged

__all__ = ["package_command"]

_KINDS = "c, cmake, tar, zephyr, esp-idf, platformio, yocto, buildroot, android, deb, rauc, mender"

_EPILOG = """\b
Examples:
  edgeprune package runs/20260101-120000 --for c -o digits
  edgeprune package words=runs/a wake=runs/b --for cmake --name speech -o third_party/speech
  edgeprune package runs/20260101-120000 --for tar --sign key.pem -o digits.tar.gz
"""


def _print_schema(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from edgeprune.package.manifest import manifest_schema

        emit(manifest_schema())
        context.exit()


@click.command("package", epilog=_EPILOG, short_help="Write what a run chose as C, for CMake, as an archive ...")
@click.argument("runs", metavar="[NAME=]RUN...", nargs=-1, required=True)
@click.option(
    "--for",
    "kind",
    required=True,
    metavar="KIND",
    help=f"{_KINDS}, or a plug-in's; KIND:key=value,... where its README says so.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A folder, or an archive: .tar, .tar.gz, .tgz, .tar.xz, .zip.",
)
@click.option("--name", help="Of the package, and of its only model; by default what the task is called.")
@click.option("--model-version", default="1.0.0", show_default=True, metavar="X.Y.Z", help="Yours, of the package.")
@click.option("--prefix", default="", help="What all C names of models begin with: acme_.")
@click.option("--align", type=int, default=16, show_default=True, metavar="BYTES", help="Of the arrays.")
@click.option("--section", metavar="NAME", help="Of the linker, for the arrays: .models.")
@click.option(
    "--compressed",
    is_flag=True,
    help="For c and cmake: store models without their zeros, with a loader in C that needs liblzma.",
)
@click.option("--licence", type=click.Path(path_type=Path), metavar="FILE", help="Of the model, put in as LICENSE.")
@click.option("--sign", type=click.Path(path_type=Path), metavar="KEY", help="An Ed25519 private key in PEM.")
@click.option(
    "--locked", is_flag=True, help="A run without its edgeprune.lock is an error: none is made of its result."
)
@click.option("--offline", is_flag=True, help="Refuse every use of the network. Nothing here needs it; a plug-in may.")
@click.option("-MF", "depfile", type=click.Path(path_type=Path), metavar="FILE", help="Write what was read, for make.")
@click.option("-MT", "target", metavar="TARGET", help="What the rule in that file is for; by default the manifest.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing where all went well.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of manifest.json, and do nothing else.",
)
@as_json
def package_command(
    *,
    runs: tuple[str, ...],
    kind: str,
    output: Path,
    name: str | None,
    model_version: str,
    prefix: str,
    align: int,
    section: str | None,
    compressed: bool,
    licence: Path | None,
    sign: Path | None,
    locked: bool,
    offline: bool,
    depfile: Path | None,
    target: str | None,
    quiet: bool,
    json_output: bool,
) -> None:
    """Write a package of the model that RUN chose (of several, one of all), for a build system.

    RUN is the folder of a run, or its edgeprune.lock. Unless --locked, a project stands for its latest run, and a file
    that was exported can be packaged with what its manifest says. Only the lock and the file that it names are read;
    the file is checked by its sha256. The same run gives the same bytes, wherever and whenever; with
    --compressed by the same liblzma.
    """
    from edgeprune.pipeline.package import Depfile, Options, package

    if target is not None and depfile is None:
        raise UsageError("-MT says what a rule is for, and there is no file for it", hint="give -MF FILE as well")
    options = Options(
        name=name,
        version=model_version,
        prefix=prefix,
        alignment=align,
        section=section,
        compressed=compressed,
        licence=licence,
        sign=sign,
        locked=locked,
        offline=offline,
        depfile=None if depfile is None else Depfile(depfile, target),
    )
    if not locked:
        runs = tuple(_latest(run) for run in runs)
    packaged = package(runs, output, kind=kind, options=options)
    if json_output:
        emit(_data(packaged))
    elif not quiet:
        _show(packaged)


def _latest(run: str) -> str:
    """The latest run of a project, with the name that was given; any other RUN as it is."""
    from edgeprune.pipeline.package import split_name

    name, path = split_name(run)
    if not (Path(path) / "edgeprune.yaml").is_file():
        return run
    from edgeprune.cli.project import latest_run
    from edgeprune.records.project import load_project

    runs = load_project(Path(path)).runs
    latest = latest_run(runs)
    if latest is None:
        raise UsageError(f"there is no run in {runs}", hint=f"start one: edgeprune run {shlex.quote(path)}")
    return str(latest) if name is None else f"{name}={latest}"


def _data(packaged: Packaged) -> dict[str, Any]:
    contents = packaged.contents
    return {
        "output": str(packaged.output),
        "kind": packaged.kind,
        "name": contents.name,
        "version": contents.version,
        "models": [
            {"identifier": model.identifier, "sha256": model.artifact.sha256, "size_bytes": len(model.data)}
            | {"stored_bytes": None if model.sparse is None else len(model.sparse)}
            for model in contents.models
        ],
        "files": {path: hashlib.sha256(file.data).hexdigest() for path, file in packaged.files.items()},
        "changed": list(packaged.changed),
    }


def _show(packaged: Packaged) -> None:
    from edgeprune.units import format_size

    contents = packaged.contents
    for model in contents.models:
        size = format_size(len(model.data))
        stored = "" if model.sparse is None else f" stored in {format_size(len(model.sparse))}"
        click.echo(f"{model.identifier}: {model.artifact.format}, {size}{stored}, sha256 {model.artifact.sha256[:16]}…")
    written = [path for path in packaged.changed if path in packaged.files]
    changed = f"{len(written)} of them written" if written else "nothing had changed"
    removed = len(packaged.changed) - len(written)
    if removed:
        changed += f", {removed} file{'s' if removed > 1 else ''} of the package that was there before removed"
    if packaged.output.is_file():
        changed = "written" if packaged.changed else "nothing had changed"
    click.echo(f"{packaged.output}: {contents.name} {contents.version} for {packaged.kind}, ", nl=False)
    click.echo(f"{len(packaged.files)} files, {changed}; README.md says how to use it")
