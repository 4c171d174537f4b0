"""`SHA256SUMS`: a line per file of a package, as `sha256sum --check` reads it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeprune.errors import StorageError, UsageError

__all__ = ["SIGNATURE", "SUMS", "SumsCheck", "listed", "sums", "verify_sums"]

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True, slots=True)
class SumsCheck:
    """What a folder's files are against its SHA256SUMS: paths relative to the folder, each in one of the four."""

    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()  # another content
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()  # there, and nobody says what they should be

    @property
    def ok(self) -> bool:
        """Every listed file is there and as it should be; files that are not listed do not count."""
        return bool(self.right) and not (self.wrong or self.missing)


def sums(files: Mapping[str, bytes]) -> str:
    """The text of SHA256SUMS for these files, sorted by path."""
    return "".join(f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))


def listed(folder: Path) -> dict[str, str]:
    """The digests by path; raises UsageError where there is no SHA256SUMS, or a line or a path in it is not allowed."""
    file = folder / SUMS
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        hint = "name a folder that `edgeprune package` wrote"
        raise UsageError(f"there is no {SUMS} in {folder}", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {file}: {error}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UsageError(f"{file}:{number}: not a line of sha256sum: {line!r}", hint="package the model again")
        path = PurePosixPath(match[2])
        if path.is_absolute() or ".." in path.parts or str(path) != match[2] or match[2] in found:
            raise UsageError(f"{file}:{number}: {match[2]!r} is not a path below the folder, once", hint="trust it not")
        found[match[2]] = match[1]
    return found


def verify_sums(folder: Path) -> SumsCheck:
    """Every file of a packaged folder against SHA256SUMS; raises UsageError, StorageError."""
    expected = listed(folder)
    right: list[str] = []
    wrong: list[str] = []
    missing: list[str] = []
    for path, digest in expected.items():
        try:
            same = hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            missing.append(path)
            continue
        except OSError as error:
            raise StorageError(f"cannot read {folder / path}: {error.strerror or error}") from error
        (right if same else wrong).append(path)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    unlisted = sorted(there - set(expected) - {SUMS, SIGNATURE})
    return SumsCheck(tuple(right), tuple(wrong), tuple(missing), tuple(unlisted))
