from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import torch
from torch import nn

from edgeprune.records.recovery import FineTuneSettings
from edgeprune.recovery.checkpoint import State, fingerprint, load, save

STATE = State(fingerprint="f", epoch=2, steps=14, steps_per_epoch=7, final_loss=0.25, seconds=1.5)


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()
    return module, optimizer


def test_round_trip(tmp_path: Path) -> None:
    module, optimizer = trained()
    save(tmp_path / "c", module, optimizer, STATE)
    other, other_optimizer = trained()
    assert load(tmp_path / "c", other, other_optimizer, "f") == STATE
    for (name, a), (_, b) in zip(module.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[a]["momentum_buffer"], other_optimizer.state[b]["momentum_buffer"])


def test_another_fingerprint_changes_nothing(tmp_path: Path) -> None:
    module, optimizer = trained()
    save(tmp_path / "c", module, optimizer, STATE)
    other, other_optimizer = trained()
    before = other[0].weight.clone()
    assert load(tmp_path / "c", other, other_optimizer, "g") is None
    assert torch.equal(other[0].weight, before)


def test_file_is_safetensors_with_the_state_in_its_metadata(tmp_path: Path) -> None:
    module, optimizer = trained()
    save(tmp_path / "c", module, optimizer, STATE)
    with safetensors.safe_open(tmp_path / "c", framework="pt") as file:
        assert json.loads(file.metadata()["state"])["epoch"] == 2
        assert {"model/0.weight", "model/1.running_var", "momentum/0.bias"} <= set(file.keys())
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("change", ["settings", "seed", "extra", "buffer"])
def test_fingerprint_covers(change: str) -> None:
    module, _ = trained()
    before = fingerprint(module, FineTuneSettings(), 0, True)
    assert before == fingerprint(module, FineTuneSettings(), 0, True)
    settings = FineTuneSettings(epochs=7) if change == "settings" else FineTuneSettings()
    if change == "buffer":
        module[1].running_mean += 1
    after = fingerprint(module, settings, 1 if change == "seed" else 0, change != "extra")
    assert after != before
