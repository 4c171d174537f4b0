from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgeprune.cli.main import run_cli
from edgeprune.graph.capture import capture
from edgeprune.graph.storage import save
from tests.pipeline.small_project import PROJECT, write_project

COARSE = PROJECT.replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16")


@pytest.fixture(scope="session", autouse=True)
def own_device_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever else measures on this machine now is not waited for: nothing here is about figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(tmp_path_factory.mktemp("lock") / "device.lock"))
        yield


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small captured network as a .pt2 file."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    path = tmp_path_factory.mktemp("model") / "dense.pt2"
    save(capture(model.eval(), (torch.randn(2, 6),)), path)
    return path


@pytest.fixture(scope="session")
def accepted_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small network, measured on this machine; its project is two folders above."""
    project = write_project(tmp_path_factory.mktemp("accepted"), COARSE).parent
    assert run_cli(["run", str(project), "--run-dir", str(project / "runs/first")]) == 0
    return project / "runs/first"
