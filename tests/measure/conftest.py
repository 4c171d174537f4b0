"""What measuring is tested with: small models, a real sshd, and a lock of each test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.records.artifact import Artifact
from edgeprune.testing.sshd import Sshd, sshd_missing
from tests.onnx_models import chain_of_matmuls


@pytest.fixture(scope="module", autouse=True)
def lock_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For what is measured once for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(tmp_path_factory.mktemp("lock") / "lock"))
        yield


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return chain_of_matmuls(tmp_path_factory.mktemp("models") / "small.onnx", width=64, layers=2)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """40 MiB of weights; about 1 ms a run."""
    return chain_of_matmuls(tmp_path_factory.mktemp("models") / "large.onnx", width=1024, layers=10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    if missing := sshd_missing():
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with Sshd({"EDGEPRUNE_LOCK": str(tmp_path / "remote-lock")}) as running:
        yield running
