from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.testing.sshd import Sshd, sshd_missing


def skip_or_fail(reason: str) -> None:
    """A tool is missing: fine on a person's machine, never in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True)
    if done.returncode != 0:
        skip_or_fail(f"cannot mount a small tmpfs: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server for all tests that leave it as it is."""
    if missing := sshd_missing():
        skip_or_fail(missing)
    device = tmp_path_factory.mktemp("device")
    with Sshd({"EDGEPRUNE_LOCK": str(device / "lock"), "XDG_CACHE_HOME": str(device)}) as server:
        yield server


@pytest.fixture
def own_server(server: Sshd) -> Iterator[Sshd]:
    with Sshd() as mine:
        yield mine
