"""~/.ssh/config, with the files that it includes: paramiko reads the rest of it, and passes Include over in silence."""

from __future__ import annotations

import glob
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import paramiko

from edgeprune.errors import UsageError

__all__ = ["read"]

_DEPTH = 16  # as OpenSSH
_KEYWORD = re.compile(r"\s*(include|host|match)(?:\s*=\s*|\s+)(.*?)\s*", re.IGNORECASE)


def read(path: str | Path | None) -> paramiko.SSHConfig | None:
    """The file, None where there is no ~/.ssh/config. Raises UsageError where it cannot be read."""
    file = Path(path or "~/.ssh/config").expanduser()
    if path is None and not file.exists():
        return None
    text = "\n".join(_lines(file, _DEPTH))
    try:
        return paramiko.SSHConfig.from_file(io.StringIO(text))
    except paramiko.ConfigParseError as error:
        raise UsageError(f"{file}: {error}") from error


def _lines(file: Path, depth: int) -> Iterator[str]:
    """The lines, in place of Include those of the files; what follows belongs to the block before it again."""
    if depth == 0:
        raise UsageError(f"{file}: Include leads too deep")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {getattr(error, 'strerror', error)}") from error
    block = ""
    for line in lines:
        found = _KEYWORD.fullmatch(line)
        if found is not None and found[1].lower() == "match" and re.search(r"\bexec\b", found[2], re.IGNORECASE):
            raise UsageError(
                f"{file}: {line.strip()}: edgeprune runs no commands to find out how a host is reached",
                hint="write Host in its place, or name a file without it: ssh://...?config=FILE",
            )
        if found is None or found[1].lower() != "include":
            block = line if found else block
            yield line
            continue
        for pattern in shlex.split(found[2]):
            absolute = (
                Path("~/.ssh", pattern).expanduser() if not pattern.startswith("~") else Path(pattern).expanduser()
            )
            for name in sorted(glob.glob(str(absolute))):  # noqa: PTH207 - an absolute pattern
                for inner in _lines(Path(name), depth - 1):
                    if block and _KEYWORD.fullmatch(inner):
                        raise UsageError(
                            f"{file}: {line.strip()}: its hosts would count only below {block.strip()!r}",
                            hint="put the Include before the first Host",
                        )
                    yield inner
                yield block or "Host *"
