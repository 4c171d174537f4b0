"""The agent as one file: `edgeprune.agent.device`, standard-library Python 3.6, as a zip that Python runs.

JSON lines on stdin and stdout. The first line it writes is `hello` (machine, runtimes) or `busy` (who holds the
device); requests are `measure`, `probe`, `ping` and `bye`. Every measurement runs in fresh worker processes (the same
file with `--worker`). While it lives it holds a lock, so that two users never measure at once. When its input ends,
or nothing was heard for `--idle-s`, it kills its workers and itself; without a `bye` it removes its folder first.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

import edgeprune.agent

__all__ = ["SOURCES", "agent_bytes", "agent_sha256", "write_agent"]

SOURCES = Path(edgeprune.agent.__path__[0]) / "device"
_PACKAGE = "edgeprune_agent"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold: the same sources give the same bytes


@cache
def agent_bytes() -> bytes:
    """The zip, compressed: a third of the sources' size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(SOURCES.glob("*.py")):
            name = path.name if path.name == "__main__.py" else f"{_PACKAGE}/{path.name}"
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def agent_sha256() -> str:
    """Of the zip; the agent says the same of itself in `hello`."""
    return hashlib.sha256(agent_bytes()).hexdigest()


def write_agent(folder: Path) -> Path:
    """The zip as a file in `folder`, named by its content."""
    path = folder / f"agent-{agent_sha256()[:16]}.pyz"
    path.write_bytes(agent_bytes())
    return path
