"""The search as a function call: a task object, no project file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import edgeprune
from edgeprune.errors import TaskError, UsageError
from edgeprune.records.project import SearchSettings
from edgeprune.records.recovery import FineTuneSettings

torch.manual_seed(0)
INPUTS = torch.randn(256, 8)
NETWORK = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
LABELS = NETWORK(INPUTS).argmax(1)  # the dense network is right by definition


class Task:
    def model(self) -> torch.nn.Module:
        return NETWORK

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (INPUTS[:2],)

    def evaluate(self, model: torch.nn.Module) -> float:
        return (model(INPUTS).argmax(1) == LABELS).float().mean().item()


@pytest.fixture(autouse=True)
def own_device_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "device.lock"))


def test_a_task_object_is_pruned_to_its_budget(tmp_path: Path) -> None:
    result = edgeprune.search(
        Task(),
        budget={"size": "80% of dense", "accuracy": {"min": "60%"}},
        run_dir=tmp_path / "run",
        settings=SearchSettings(max_trials=6),
        recovery=FineTuneSettings(epochs=0),
    )
    assert result.status == "accepted"
    assert result.dense.figures["accuracy"].value == 1.0
    best, dense = (trial.figures["size"].value for trial in (result.best, result.dense) if trial is not None)
    assert best is not None
    assert dense is not None
    assert best <= 0.8 * dense
    assert (tmp_path / "run" / "result.json").exists()


def test_a_task_that_lacks_a_part_and_a_budget_of_nothing_are_refused(tmp_path: Path) -> None:
    size = edgeprune.Budget.parse({"size": "1MB"})
    with pytest.raises(TaskError, match=r"object has no model\(\)"):
        edgeprune.search(object(), budget=size, run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match=r"^the budget limits nothing that the device measures$"):
        edgeprune.search(Task(), budget=edgeprune.Budget(), run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match="'4MB' is no budget"):
        edgeprune.search(Task(), budget="4MB", run_dir=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
