from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import StorageError, TaskError, UsageError
from edgeprune.graph.capture import capture
from edgeprune.progress import SILENT
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.recovery.finetune import finetune, learning_rate

SETTINGS = FineTuneSettings(epochs=3, learning_rate=0.05)


def network() -> nn.Module:
    """Batch-norm and dropout, so that statistics and the generator matter; captured, as in a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        return capture(model, (torch.randn(2, 4),)).module


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(96, 4, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.3).long()


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Draws its order from every global generator that a user may use."""
    x, y = data()
    order = torch.randperm(len(x))
    np.random.shuffle(order.numpy())
    rows = order.tolist()
    random.shuffle(rows)
    for start in range(0, len(x), 32):
        yield x[rows[start : start + 32]], y[rows[start : start + 32]]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def accuracy(module: nn.Module) -> float:
    x, y = data()
    with torch.no_grad():
        return float((module(x).argmax(1) == y).double().mean())


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_learns_and_reports() -> None:
    module = network()
    before = accuracy(module)
    report = finetune(module, batches, loss, settings=FineTuneSettings(epochs=20), teacher=None, seed=0)
    assert (report.epochs, report.steps) == (20, 60)
    assert report.seconds > 0
    assert report.final_loss < 0.75
    assert before < 0.6
    assert accuracy(module) > 0.8
    assert not module.training


def test_the_loss_is_the_mean_of_the_examples_live_and_at_the_end() -> None:
    """A last batch of one counts as one example, not as much as one of three."""
    notes: list[str] = []

    class Step:
        def advance(self, amount: int = 1, note: str = "") -> None:
            if amount:
                notes.append(note)

    class Progress:
        say = SILENT.say

        @contextmanager
        def step(self, description: str, total: int | None = None) -> Iterator[Step]:
            yield Step()

    def constant(model: nn.Module, batch: tuple[Tensor, float]) -> Tensor:
        return model(batch[0]).sum() * 0 + batch[1]

    def uneven() -> Iterator[tuple[Tensor, float]]:
        yield torch.ones(3, 4), 1.0
        yield torch.ones(1, 4), 5.0

    settings = FineTuneSettings(epochs=1, learning_rate=0.1)
    module = capture(nn.Linear(4, 2), (torch.ones(2, 4),)).module
    report = finetune(module, uneven, constant, settings=settings, teacher=None, seed=0, progress=Progress())
    assert report.final_loss == 2.0
    assert notes[-2:] == ["loss 1.000", "loss 2.000"]


def test_one_step_is_the_gradient_of_the_mixed_loss() -> None:
    """Student w = 2, teacher 5, x = 3: loss 6, distance (2·3 - 5·3)² = 81, so 0.1 · 3 + 0.9 · 2 · (-9) · 3 = -48.3."""
    student, teacher = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(student.weight, 2.0)
    nn.init.constant_(teacher.weight, 5.0)
    settings = FineTuneSettings(epochs=1, learning_rate=0.01, momentum=0.0, weight_decay=0.0, distillation=0.9)
    source = [torch.tensor([[3.0]])]
    finetune(student, lambda: source, lambda m, x: m(x).sum(), settings=settings, teacher=teacher, seed=0)
    assert student.weight.item() == pytest.approx(2 + 0.01 * 48.3, rel=1e-5)
    assert teacher.weight.item() == 5.0


def test_weight_decay_spares_one_dimensional_parameters() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = state(module)
    settings = FineTuneSettings(epochs=1, learning_rate=0.1, momentum=0.0, weight_decay=0.5, distillation=0.0)
    finetune(module, lambda: [torch.randn(4, 2)], lambda m, x: m(x).sum() * 0, settings=settings, teacher=None, seed=0)
    torch.testing.assert_close(module[0].weight, before["0.weight"] * (1 - 0.1 * 0.5))
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(module.get_parameter(name), before[name])


def test_cosine_schedule() -> None:
    settings = FineTuneSettings(learning_rate=0.4)
    assert [learning_rate(settings, step, 4) for step in range(5)] == pytest.approx(
        [0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5)), 0.0]
    )


def test_gradient_clipping() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    settings = FineTuneSettings(epochs=1, learning_rate=0.1, momentum=0.0, weight_decay=0.0)
    source = [torch.tensor([[100.0]])]
    finetune(
        module, lambda: source, lambda m, x: m(x).sum(), settings=settings, teacher=None, seed=0, max_gradient_norm=1.0
    )
    assert module.weight.item() == pytest.approx(2 - 0.1, rel=1e-5)


def test_same_seed_same_weights_whatever_the_surroundings_drew() -> None:
    results = []
    for surroundings in (1, 2):
        torch.manual_seed(surroundings)
        random.seed(surroundings)
        np.random.seed(surroundings)
        module = network()
        finetune(module, batches, loss, settings=SETTINGS, teacher=network(), seed=7)
        results.append(state(module))
    other = network()
    finetune(other, batches, loss, settings=SETTINGS, teacher=network(), seed=8)
    assert same(*results)
    assert not same(results[0], state(other))


def test_generators_are_given_back() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    finetune(network(), batches, loss, settings=SETTINGS, teacher=None, seed=0)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


class Interrupting:
    """The loss, until it has been called `after` times."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return loss(model, batch)


@pytest.mark.parametrize("after", [2, 3, 4, 7])
def test_interrupted_fine_tuning_continues_to_the_same_end(tmp_path: Path, after: int) -> None:
    settings = FineTuneSettings(epochs=4, learning_rate=0.05)
    straight = network()
    uninterrupted = finetune(straight, batches, loss, settings=settings, teacher=network(), seed=1)

    checkpoint = tmp_path / "finetune.safetensors"
    module = network()
    with pytest.raises(KeyboardInterrupt):
        finetune(
            module, batches, Interrupting(after), settings=settings, teacher=network(), seed=1, checkpoint=checkpoint
        )
    assert not module.training
    assert checkpoint.exists() == (after >= 3)

    calls = []
    resumed = network()
    report = finetune(
        resumed,
        batches,
        lambda m, b: calls.append(1) or loss(m, b),  # type: ignore[func-returns-value]
        settings=settings,
        teacher=network(),
        seed=1,
        checkpoint=checkpoint,
    )
    assert same(state(resumed), state(straight))
    assert len(calls) == 12 - after // 3 * 3  # whole epochs are not repeated
    assert (report.epochs, report.steps) == (4, 12)
    assert report.final_loss == uninterrupted.final_loss
    assert [path.name for path in tmp_path.iterdir()] == ["finetune.safetensors"]


def test_finished_checkpoint_is_only_loaded(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c"
    module = network()
    first = finetune(module, batches, loss, settings=SETTINGS, teacher=None, seed=0, checkpoint=checkpoint)
    again = network()
    second = finetune(again, batches, Interrupting(0), settings=SETTINGS, teacher=None, seed=0, checkpoint=checkpoint)
    assert same(state(module), state(again))
    assert first == second


@pytest.mark.parametrize("change", ["seed", "settings", "weights"])
def test_checkpoint_of_another_fine_tuning_is_not_continued(tmp_path: Path, change: str) -> None:
    checkpoint = tmp_path / "c"
    finetune(network(), batches, loss, settings=SETTINGS, teacher=None, seed=0, checkpoint=checkpoint)
    module, fresh = network(), network()
    if change == "weights":
        with torch.no_grad():
            for changed in (module, fresh):
                next(changed.parameters())[0] += 1
    settings = FineTuneSettings(epochs=3, learning_rate=0.04) if change == "settings" else SETTINGS
    seed = 1 if change == "seed" else 0
    finetune(fresh, batches, loss, settings=settings, teacher=None, seed=seed)
    finetune(module, batches, loss, settings=settings, teacher=None, seed=seed, checkpoint=checkpoint)
    assert same(state(module), state(fresh))


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c"
    checkpoint.write_bytes(b"\x10\0\0\0\0\0\0\0 not safetensors")
    with pytest.raises(StorageError, match="cannot read the checkpoint") as caught:
        finetune(network(), batches, loss, settings=SETTINGS, teacher=None, seed=0, checkpoint=checkpoint)
    assert "delete it" in (caught.value.hint or "")


def test_shared_parameters_survive_a_checkpoint(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(x)))

    torch.manual_seed(0)
    module, checkpoint = Tied(), tmp_path / "c"
    again = copy.deepcopy(module)
    finetune(module, batches, loss, settings=SETTINGS, teacher=None, seed=0, checkpoint=checkpoint)
    finetune(again, batches, Interrupting(0), settings=SETTINGS, teacher=None, seed=0, checkpoint=checkpoint)
    assert again.first.weight is again.second.weight
    assert same(state(module), state(again))


def test_loss_that_is_not_finite_names_epoch_and_step() -> None:
    def diverging(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        diverging.calls += 1  # type: ignore[attr-defined]
        return loss(model, batch) * (math.nan if diverging.calls == 5 else 1)  # type: ignore[attr-defined]

    diverging.calls = 0  # type: ignore[attr-defined]
    module = network()
    with pytest.raises(TaskError, match="became nan in epoch 2, step 2") as caught:
        finetune(module, batches, diverging, settings=SETTINGS, teacher=None, seed=0)
    assert "learning_rate" in (caught.value.hint or "")
    assert not module.training


def test_max_batches_per_epoch_also_limits_a_list() -> None:
    settings = FineTuneSettings(epochs=2, max_batches_per_epoch=2)
    for source in (batches, lambda: list(batches())):
        assert finetune(network(), source, loss, settings=settings, teacher=None, seed=0).steps == 4


def test_no_batches() -> None:
    for source in (list, lambda: iter(())):
        with pytest.raises(TaskError, match="gave no batch"):
            finetune(network(), source, loss, settings=SETTINGS, teacher=None, seed=0)


def test_no_epochs_is_no_fine_tuning() -> None:
    module = network().train()
    before = state(module)
    report = finetune(module, batches, loss, settings=FineTuneSettings(epochs=0), teacher=None, seed=0)
    assert report.steps == 0
    assert same(before, state(module))
    assert not module.training


def test_nothing_to_train() -> None:
    module = network().requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter that requires a gradient"):
        finetune(module, batches, loss, settings=SETTINGS, teacher=None, seed=0)


def test_distillation_learns_from_the_teacher_where_labels_are_wrong() -> None:
    teacher = network()
    finetune(teacher, batches, loss, settings=FineTuneSettings(epochs=20), teacher=None, seed=0)

    def wrong(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch[0]), (batch[1] + 1) % 3)

    reached = {}
    for alpha in (0.0, 1.0):
        student = network()
        settings = FineTuneSettings(epochs=20, distillation=alpha)
        finetune(student, batches, wrong, settings=settings, teacher=teacher, seed=1)
        reached[alpha] = accuracy(student)
    assert accuracy(teacher) > 0.8
    assert reached[0.0] < 0.3
    assert reached[1.0] > 0.8
