"""A package of what runs chose: from their locks and artifacts alone, without torch, network or clock.

runs -> locks -> contents -> files -> folder or archive (-> depfile)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgeprune import registry
from edgeprune.errors import StorageError, UsageError
from edgeprune.export import manifest
from edgeprune.package import signature, write
from edgeprune.package.base import Contents, File, Model, Packager
from edgeprune.package.build import build
from edgeprune.package.names import c_identifier, check_prefix, check_version, package_name, unique
from edgeprune.pipeline.locking import read_exported, read_locked, relock
from edgeprune.pipeline.offline import no_network
from edgeprune.records import lock
from edgeprune.records.lock import Lock

__all__ = ["Depfile", "Options", "Packaged", "package", "split_name"]


@dataclass(frozen=True, slots=True)
class Depfile:
    """Where the rule goes, and what it says is made; by default the package's manifest, or the archive."""

    path: Path
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How a package is to be. `name` is the first model's by default; `licence` and `sign` are files."""

    name: str | None = None
    version: str = "1.0.0"
    prefix: str = ""
    alignment: int = 16
    section: str | None = None
    compressed: bool = False  # models are stored without their zeros
    licence: Path | None = None
    sign: Path | None = None
    locked: bool = False  # runs have their locks, and nothing is made or looked for
    offline: bool = False
    depfile: Depfile | None = None


@dataclass(frozen=True, slots=True)
class Packaged:
    """What was written where; `changed` holds what was not there in this form before."""

    output: Path
    kind: str
    contents: Contents
    files: Mapping[str, File]
    changed: tuple[str, ...] = ()


def package(runs: Sequence[str], output: Path, *, kind: str, options: Options | None = None) -> Packaged:
    """Package the models of `runs`, each "RUN" or "NAME=RUN", for `kind`, into the folder or archive `output`.

    `kind` may have parameters: "deb:maintainer=Jane Doe <jane@example.org>". A RUN is the folder of a run, its
    edgeprune.lock, or a file that was exported with its manifest. Every artifact is verified by its sha256 before
    anything is made of it. Raises UsageError, StorageError.
    """
    options = options or Options()
    registry.check("packagers", registry.split(kind)[0])
    write.check_output(output)
    with ExitStack() as stack:
        if options.offline:
            stack.enter_context(no_network())
        packager: Packager = registry.create("packagers", kind)
        if options.compressed:
            _check_sparse(kind, packager)
        sources = [_source(*split_name(run), locked=options.locked) for run in runs]
        contents = _contents(sources, options)
        files = build(packager, contents, sign=_signer(options.sign))
    if write.archive_suffix(output) is None:
        changed = write.write_folder(files, output)
    else:
        root = f"{contents.name}-{contents.version}"
        changed = (output.name,) if write.write_archive(files, output, root=root, epoch=contents.epoch) else ()
    if options.depfile is not None:
        read = [path for source in sources for path in source.read]
        read += [path for path in (options.licence, options.sign) if path is not None]
        _write_depfile(options.depfile, output, read)
    return Packaged(output, packager.name, contents, files, changed)


def split_name(run: str) -> tuple[str | None, str]:
    """The name and the path of "NAME=RUN"; a path that exists is one, whatever it is called. Raises UsageError."""
    name, equals, path = run.partition("=")
    if not equals or Path(run).exists():
        return None, run
    if not name or not path:
        raise UsageError(f"{run!r} is not of the form NAME=RUN")
    return name, path


@dataclass(frozen=True, slots=True)
class _Source:
    """A model with the name that it was given, and the files that it was read from."""

    name: str | None
    lock: Lock
    data: bytes
    read: tuple[Path, ...]


def _source(name: str | None, run: str, *, locked: bool) -> _Source:
    path = Path(run)
    if path.is_file() and path.suffix != Path(lock.FILE).suffix:
        if locked:
            hint = "name the folder of a run, or leave --locked out"
            raise UsageError(f"{path} is a file without a lock", hint=hint)
        return _Source(name, *read_exported(path), (path, manifest.manifest_path(path)))
    if not path.is_file():
        path = path / lock.FILE
    if not path.exists() and not locked:
        relock(path.parent)
    known, data = read_locked(path)
    return _Source(name, known, data, (path, path.parent / known.artifact.path))


def _contents(sources: Sequence[_Source], options: Options) -> Contents:
    if not sources:
        raise UsageError("there is nothing to package", hint="name at least one run")
    prefix = check_prefix(options.prefix)
    if options.alignment < 1 or options.alignment & (options.alignment - 1) or options.alignment > 4096:
        raise UsageError(f"an alignment of {options.alignment} is not possible", hint="a power of two up to 4096")
    alone = options.name if len(sources) == 1 else None
    names = [source.name or alone or source.lock.name for source in sources]
    identifiers = unique([prefix + c_identifier(name) for name in names])
    models = tuple(
        Model(identifier, source.lock, source.data, _sparse(source) if options.compressed else None)
        for identifier, source in zip(identifiers, sources, strict=True)
    )
    return Contents(
        name=package_name(options.name or names[0]),
        version=check_version(options.version),
        models=models,
        licence=None if options.licence is None else _licence(options.licence),
        alignment=options.alignment,
        section=options.section,
        epoch=_epoch(),
    )


def _check_sparse(kind: str, packager: Packager) -> None:
    def able(one: object) -> bool:
        return getattr(one, "takes_sparse", False)

    if not able(packager):
        others = [name for name in registry.names("packagers") if able(registry.resolve("packagers", name))]
        raise UsageError(f"a package for {kind} has no compressed models", hint=f"what has: {', '.join(others)}")


def _sparse(source: _Source) -> bytes:
    from edgeprune.export.sparse_file import stored

    return stored(source.lock.artifact, source.data)


def _licence(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no licence {path}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the licence {path} is not text in UTF-8", hint="save it as such") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def _signer(key: Path | None) -> Callable[[bytes], bytes] | None:
    return None if key is None else partial(signature.sign, key=key)


def _epoch() -> int:
    """SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), 0 where it is not set."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "").strip()
    if not text:
        return 0
    # Until 2242 it fits the eleven octal digits of a tar archive.
    if not text.isascii() or not text.isdigit() or int(text) >= 8**11:
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}", hint="it is a number of seconds since 1970")
    return int(text)


def _write_depfile(depfile: Depfile, output: Path, read: Sequence[Path]) -> None:
    made = output if write.archive_suffix(output) is not None else output / "manifest.json"
    rule = write.depfile(depfile.target or str(made), [str(path) for path in read])
    write.write_if_changed(depfile.path, File(rule.encode()))
