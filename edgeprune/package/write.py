"""A package on disk: a folder, where only what changed is written, or an archive without times and owners."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from edgeprune import atomic
from edgeprune.errors import StorageError, UsageError
from edgeprune.package.archives import tar_archive, zip_archive
from edgeprune.package.base import File
from edgeprune.package.checksums import SIGNATURE, SUMS, listed
from edgeprune.package.manifest import SCHEMA

__all__ = ["ARCHIVES", "archive_suffix", "check_output", "depfile", "write_archive", "write_folder", "write_if_changed"]

MANIFEST = "manifest.json"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")
# What is packed, and not in `ARCHIVES`: other compressions, other programs, the files of package managers.
_PACKED = re.compile(
    r".+\.(tar|zip|t?(gz|bz|xz|zst|lz|lzma|lz4|lzo|br)[0-9a-z]?|z|7z|rar|cab|iso|cpio|jar|aar|deb|rpm|ipk|apk)",
    re.IGNORECASE,
)


def archive_suffix(path: Path) -> str | None:
    """The suffix that makes `path` an archive; None where it is a folder."""
    return next((suffix for suffix in ARCHIVES if path.name.endswith(suffix) and path.name != suffix), None)


def check_output(path: Path) -> None:
    """Raise UsageError where the package must not be written to `path`: it is something else."""
    if archive_suffix(path) is not None:
        if path.is_dir():
            raise UsageError(f"{path} is a folder", hint="name an archive that is not there yet, or a folder")
        return
    if _PACKED.fullmatch(path.name) and not path.exists():
        raise UsageError(
            f"{path} looks like an archive of a kind that is not written",
            hint=f"name a folder, or an archive: {', '.join(ARCHIVES)}",
        )
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, and not an archive", hint=f"name a folder, or {', '.join(ARCHIVES)}")
    # Empty folders do not count: ninja makes them for what it expects.
    if path.is_dir() and not _is_package(path) and any(not file.is_dir() for file in path.rglob("*")):
        raise UsageError(f"{path} holds other files than a package", hint="name a new folder, or empty this one")


def _is_package(folder: Path) -> bool:
    """Whether what lies there may be replaced: a package, or one whose writing was cut off."""
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and str(data.get("schema")).startswith(SCHEMA.partition("/")[0] + "/")


def write_folder(files: Mapping[str, File], folder: Path) -> tuple[str, ...]:
    """Make `folder` the package; the paths that were written or removed. What is as it should be is not touched.

    Files of an earlier package there that this one has not are removed; what nobody packaged stays.
    Raises UsageError (`check_output`), StorageError.
    """
    check_output(folder)
    before = set(listed(folder)) | {SIGNATURE} if (folder / SUMS).is_file() else set()
    for path in (*before, *files):
        if not (folder / path).parent.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{folder / path} leads out of the package, by a link", hint="package into a new folder")
    changed = [path for path in sorted(before - set(files)) if _remove(folder, path)]
    # The manifest comes first, by which the folder is known for a package; the sums last: one that was cut off does
    # not pass for a whole one.
    order = sorted(files, key=lambda path: (path == SUMS, path != MANIFEST))
    changed += [path for path in order if write_if_changed(folder / path, files[path])]
    return tuple(changed)


def write_if_changed(path: Path, file: File) -> bool:
    """Whether it had to be written; raises StorageError."""
    mode = 0o755 if file.executable else 0o644
    try:
        known = path.lstat()
        same = stat.S_ISREG(known.st_mode) and known.st_size == len(file.data) and path.read_bytes() == file.data
        if same and bool(known.st_mode & stat.S_IXUSR) == file.executable:
            return False
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    atomic.write_bytes(path, file.data)
    path.chmod(mode)
    return True


def write_archive(files: Mapping[str, File], path: Path, *, root: str, epoch: int = 0) -> bool:
    """Write the archive with all files below the folder `root`; whether it had to be written.

    Sorted, owned by root, all times `epoch`: the same files give the same bytes (with one version of the compressing
    library; `.tar` and `.zip`, which are not compressed, with any). Raises UsageError (`check_output`), StorageError.
    """
    check_output(path)
    suffix = archive_suffix(path)
    if suffix is None:
        raise UsageError(f"{path} is not the name of an archive", hint=f"valid here: {', '.join(ARCHIVES)}")
    if suffix == ".zip":
        data = zip_archive({f"{root}/{name}": file for name, file in files.items()}, epoch)
    else:
        data = tar_archive(files, epoch, root=f"{root}/")
    if suffix in (".tar.gz", ".tgz"):
        data = _gzip(data, epoch)
    elif suffix == ".tar.xz":
        data = lzma.compress(data)
    return write_if_changed(path, File(data))


def depfile(target: str, dependencies: list[str]) -> str:
    """A rule in make's language, which ninja and CMake read, too."""
    lines = [f"{_escaped(target)}:", *(f"  {_escaped(path)}" for path in dependencies)]
    return " \\\n".join(lines) + "\n"


def _escaped(path: str) -> str:
    if "\n" in path:
        raise UsageError(f"a path with a line break cannot stand in a depfile: {path!r}")
    return path.replace("$", "$$").replace("\\", "\\\\").replace(" ", "\\ ").replace("#", "\\#")


def _gzip(data: bytes, epoch: int) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=epoch) as file:
        file.write(data)
    return buffer.getvalue()


def _remove(folder: Path, path: str) -> bool:
    file = folder / path
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"cannot remove {file}: {error.strerror or error}") from error
    for parent in file.relative_to(folder).parents:
        with suppress(OSError):  # not empty
            if parent != Path():
                (folder / parent).rmdir()
    return True
