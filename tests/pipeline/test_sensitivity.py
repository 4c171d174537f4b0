"""Sensitivities: each narrowing and each dropped block judged alone, against the same computed by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import edgeprune
from edgeprune.errors import DamagedError, TaskError
from edgeprune.graph.captured import Captured
from edgeprune.pipeline.sensitivity import interpolated, tried_widths, with_sensitivities
from edgeprune.pipeline.space import search_space
from edgeprune.pipeline.task import check_task
from edgeprune.progress import SILENT
from edgeprune.search.base import GroupSpace, SearchSpace


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.first(x))
        y = y + self.down(functional.relu(self.up(y)))
        return self.head(y)  # type: ignore[no-any-return]


class Said:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.step = SILENT.step

    def say(self, message: str) -> None:
        self.lines.append(message)


class Task:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = Residual().eval()
        self.inputs = torch.randn(8, 32, 8)
        self.calls = 0

    def model(self) -> nn.Module:
        return self.network

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (self.inputs[0, :2],)

    def train_batches(self) -> Any:
        yield from self.inputs

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return functional.mse_loss(model(batch), torch.zeros(len(batch), 4))

    def evaluate(self, model: nn.Module) -> float:
        return 1.0 - functional.mse_loss(model(self.inputs[0]), torch.zeros(32, 4)).item()


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeprune" / "sensitivities"


class Named(Task):
    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(model(x=batch), torch.zeros(len(batch), 4))


class Augmented(Task):
    """Its inputs are others in training; it has batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        torch.manual_seed(1)
        self.network.first = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)).eval()  # type: ignore[assignment]

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        given = batch * self.scale + self.scale - 1 if model.training else batch
        return functional.mse_loss(model(given), torch.zeros(len(batch), 4))


class Blind(Task):
    train_batches = loss = None  # type: ignore[assignment]


def _space(captured: Captured) -> SearchSpace:
    scores = {g.name: torch.arange(1.0, g.units + 1).double().numpy() for g in captured.groups}
    return search_space(captured, scores, round_to=4, min_width=4)


@pytest.fixture
def task() -> Task:
    return Task()


def test_each_loss_is_the_divergence_from_the_dense_outputs(task: Task, tmp_path: Path) -> None:
    captured = edgeprune.capture(task.network, task.example_inputs())
    space = _space(captured)
    blocks = {block.name: ("up",) for block in captured.blocks}
    found = with_sensitivities(
        captured, check_task(task), space, tmp_path / "s.json", blocks=blocks, seed=0, reuse=False
    )
    up = next(group for group in found.groups if group.name == "up")
    assert up.widths == (4, 8, 12, 16, 20, 24, 28, 32)
    tried = json.loads((tmp_path / "s.json").read_text())["losses"]
    judged = task.inputs[4:]  # the first four are for batch-norm statistics
    dense = task.network(judged.flatten(0, 1)).detach()

    def by_hand(network: nn.Module) -> float:
        ours, wanted = (functional.log_softmax(y, 1) for y in (network(judged.flatten(0, 1)), dense))
        return functional.kl_div(ours, wanted, reduction="batchmean", log_target=True).item()

    for width in (4, 8, 16, 24):  # the tried ones: the least, and a quarter, half and three quarters of 32
        twin = Residual()
        twin.load_state_dict(task.network.state_dict())
        with torch.no_grad():
            twin.down.weight[:, : 32 - width] = 0  # the scores rise with the index
        assert tried[space.candidate({"up": width}).id] == pytest.approx(by_hand(twin), rel=1e-4)
    assert up.losses[-1] == 0.0
    assert list(up.losses) == sorted(up.losses, reverse=True)
    twin = Residual()
    twin.load_state_dict(task.network.state_dict())
    with torch.no_grad():
        twin.down.weight.zero_()
        twin.down.bias.zero_()
    (block,) = found.blocks
    assert block.loss == pytest.approx(by_hand(twin), rel=1e-4)
    assert block.groups == ("up",)


def test_what_was_tried_is_kept_and_not_tried_again(task: Task, tmp_path: Path) -> None:
    captured = edgeprune.capture(task.network, task.example_inputs())
    path = tmp_path / "s.json"
    once = with_sensitivities(captured, check_task(task), _space(captured), path, blocks={}, seed=0, reuse=False)
    data = json.loads(path.read_text())
    a_point = _space(captured).candidate({"up": 16})
    data["losses"][a_point.id] = 12.5
    path.write_text(json.dumps(data))
    calls = task.calls
    again = with_sensitivities(captured, check_task(task), _space(captured), path, blocks={}, seed=0, reuse=True)
    assert task.calls == calls
    up, before = (next(g for g in space.groups if g.name == "up") for space in (again, once))
    assert up.losses != before.losses
    assert max(up.losses) == pytest.approx(
        12.5 / 3, rel=0.01
    )  # falls with width again: averaged with its narrower ones
    path.write_text('{"schema": "edgeprune.sensitivities/1", "losses": 3}')
    with pytest.raises(DamagedError, match="cannot read the sensitivities"):
        with_sensitivities(captured, check_task(task), _space(captured), path, blocks={}, seed=0, reuse=True)


def _losses(task: Task, folder: Path, *, seed: int = 0, progress: Said | None = None) -> tuple[dict[str, float], int]:
    """What is judged in a run of its own, and how often the loss was called for it."""
    captured = edgeprune.capture(task.network, task.example_inputs())
    path, before = folder / f"{len(list(folder.iterdir()))}.json", task.calls
    with_sensitivities(
        captured,
        check_task(task),
        _space(captured),
        path,
        blocks={block.name: ("up",) for block in captured.blocks},
        seed=seed,
        reuse=False,
        progress=progress or Said(),
    )
    return json.loads(path.read_text())["losses"], task.calls - before


def test_another_run_judges_nothing_that_was_judged_before(task: Task, tmp_path: Path, caches: Path) -> None:
    once, calls = _losses(task, tmp_path)
    said = Said()
    again, fewer = _losses(Task(), tmp_path, progress=said)
    assert again == once
    assert (calls, fewer) == (4, 4)  # no batch norms: only to see what the network is called with
    (file,) = caches.iterdir()
    assert said.lines == [f"{len(once)} of {len(once)} sensitivities known from before: {file}"]

    data = json.loads(file.read_text())
    name = next(iter(once))
    data["losses"] = {name: 12.5}
    file.write_text(json.dumps(data))
    again, _ = _losses(task, tmp_path, progress=said)
    assert again == {**once, name: 12.5}  # taken from there, and the others judged
    assert json.loads(file.read_text())["losses"] == again
    assert said.lines[1:] == [f"1 of {len(once)} sensitivities known from before: {file}"]


def test_what_a_loss_comes_from_is_its_name(task: Task, tmp_path: Path, caches: Path) -> None:
    _losses(task, tmp_path)
    assert len(list(caches.iterdir())) == 1
    with torch.no_grad():
        task.network.down.weight[0, 0] += 1e-3
    _losses(task, tmp_path)
    assert len(list(caches.iterdir())) == 2
    task.inputs[7, 31, 7] += 1e-3  # the last number of the last judged batch
    _losses(task, tmp_path)
    assert len(list(caches.iterdir())) == 3
    task.inputs[0, 0, 0] += 1e-3  # of a batch for batch-norm statistics: this network has none
    _losses(task, tmp_path)
    assert len(list(caches.iterdir())) == 3
    _losses(task, tmp_path, seed=1)
    assert len(list(caches.iterdir())) == 4


def test_what_only_training_sees_counts_too(tmp_path: Path, caches: Path) -> None:
    task = Augmented()
    first, _ = _losses(task, tmp_path)
    task.inputs[0, 0, 0] += 1e-3  # of a batch for batch-norm statistics
    _losses(task, tmp_path)
    assert len(list(caches.iterdir())) == 2
    task.inputs[0, 0, 0] -= 1e-3
    task.scale = 3.0
    other, _ = _losses(task, tmp_path)
    assert len(list(caches.iterdir())) == 3
    assert other != first
    task.scale = 1.0
    said = Said()
    again, _ = _losses(task, tmp_path, progress=said)
    assert len(said.lines) == 1
    assert again == first


def test_keywords_of_the_call_are_kept(tmp_path: Path) -> None:
    once, _ = _losses(Task(), tmp_path)
    named, _ = _losses(Named(), tmp_path)
    assert named == once


def test_networks_that_overflow(tmp_path: Path) -> None:
    task = Task()
    with torch.no_grad():
        task.network.head.weight.fill_(float("inf"))
    with pytest.raises(TaskError, match="the dense model's outputs on training batches are not all finite numbers"):
        _losses(task, tmp_path)
    task = Task()  # the first and the last channel of `up` keep each other in bounds; the first one goes first
    with torch.no_grad():
        task.network.up.weight[[0, 31]] = 0
        task.network.up.bias[[0, 31]] = 3
        task.network.down.weight[:, 0], task.network.down.weight[:, 31] = 1e38, -1e38
    losses, _ = _losses(task, tmp_path)
    captured = edgeprune.capture(task.network, task.example_inputs())
    narrower = [losses[_space(captured).candidate({"up": width}).id] for width in (4, 8, 16, 24)]
    assert narrower == [100.0] * 4
    others = [loss for loss in losses.values() if loss != 100.0]
    assert others
    assert all(0 <= loss < 87 for loss in others)


def test_a_damaged_or_forbidden_cache_does_no_harm(task: Task, tmp_path: Path, caches: Path) -> None:
    once, _ = _losses(task, tmp_path)
    (file,) = caches.iterdir()
    whole = json.loads(file.read_text())
    name = next(iter(once))
    odd = [float("nan"), float("inf"), True, None, "0.1", 10**400]
    for content in (
        '{"losses": ',
        "[" * 100_000,
        json.dumps({**whole, "schema": "edgeprune.judged/9"}),
        *(json.dumps({**whole, "losses": {name: value}}) for value in odd),
    ):
        file.write_text(content)
        said = Said()
        again, _ = _losses(task, tmp_path, progress=said)
        assert again == once
        assert len(said.lines) == 1
        assert said.lines[0].startswith(f"warning: {file} is left out: ")
        assert said.lines[0].endswith("; what it held is judged again")
        assert json.loads(file.read_text())["losses"] == once

    shutil.rmtree(caches)
    caches.write_text("not a folder")
    said = Said()
    again, _ = _losses(task, tmp_path, progress=said)
    assert again == once
    assert any(line.startswith("warning: the sensitivities could not be kept in ") for line in said.lines)


def test_without_a_training_part_importance_stands_for_the_loss(tmp_path: Path) -> None:
    task = Blind()
    captured = edgeprune.capture(task.network, task.example_inputs())
    path = tmp_path / "s.json"
    found = with_sensitivities(
        captured, check_task(task), _space(captured), path, blocks={"block": ("up",)}, seed=0, reuse=False
    )
    first = next(group for group in found.groups if group.name == "first")
    assert first.widths == (4, 8, 12, 16)
    whole = 16 * 17 / 2
    assert first.losses == pytest.approx([1 - 58 / whole, 1 - 100 / whole, 1 - 126 / whole, 0.0])
    assert found.blocks == ()
    assert not path.exists()


def test_widths_that_are_tried() -> None:
    group = GroupSpace("g", 64, (1.0,) * 64, tuple(range(8, 65, 8)))
    assert tried_widths(group) == (8, 16, 32, 48)
    assert tried_widths(GroupSpace("g", 8, (1.0,) * 8, (8,))) == ()
    assert tried_widths(GroupSpace("g", 16, (1.0,) * 16, (8, 16))) == (8,)


def test_interpolation_never_rises_with_width() -> None:
    assert interpolated((8, 16, 24, 32), {8: 0.4, 16: 0.2}) == pytest.approx((0.4, 0.2, 0.1, 0.0))
    assert interpolated((8, 16, 24, 32), {8: 0.2, 16: 0.4}) == pytest.approx((0.3, 0.3, 0.15, 0.0))
    assert interpolated((8, 16), {8: -0.1}) == (0.0, 0.0)
    assert interpolated((16,), {}) == (0.0,)
