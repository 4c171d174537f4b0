"""int8 trials: what stays of them, and training for int8 where the file alone loses too much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeprune.export import manifest
from edgeprune.export.quantize import OnnxQuantizer
from edgeprune.export.runtime_module import RuntimeModule
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from edgeprune.pipeline.quantisation import Quantisation, calibration_of
from edgeprune.pipeline.quantised_trial import QuantisedTrial, Training, loses_too_much
from edgeprune.pipeline.task import CheckedTask, check_task
from edgeprune.progress import SILENT
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.training_data import reproducible

CENTRES = torch.randn(8, 12, generator=torch.Generator().manual_seed(1))


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(CENTRES), (count,), generator=generator)
    return CENTRES[labels] + 0.55 * torch.randn(count, 12, generator=generator), labels


class Blobs:
    """Eight classes, and a network whose hidden units have scales of their own: far apart they are int8's ruin."""

    def __init__(self, spread: float) -> None:
        self.spread = spread

    def model(self) -> nn.Module:
        with reproducible(0):
            net = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 8))
            updates = torch.optim.Adam(net.parameters(), 0.01)
            x, y = drawn(4000, 2)
            for _ in range(150):
                updates.zero_grad()
                functional.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
                updates.step()
            scales = torch.exp(self.spread * torch.randn(48))
            weight, bias, following, _ = net.parameters()
            with torch.no_grad():  # ReLU lets scales through: the same function
                weight.mul_(scales[:, None])
                bias.mul_(scales)
                following.div_(scales)
        return net.eval()

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (drawn(1, 3)[0],)

    def train_batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for seed in range(30):
            yield drawn(64, 100 + seed)

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> float:
        x, y = drawn(2000, 4)
        with torch.no_grad():
            return float((model(x).argmax(1) == y).double().mean())


@pytest.fixture(scope="module")
def task() -> CheckedTask:
    return check_task(Blobs(2.5))


@pytest.fixture(scope="module")
def captured(task: CheckedTask) -> Captured:
    return capture(task.model().eval(), task.example_inputs())


@pytest.fixture
def trial(task: CheckedTask, captured: Captured, tmp_path: Path) -> QuantisedTrial:
    quantizer = OnnxQuantizer()
    how = Quantisation(quantizer, quantizer.schemes[0], calibration_of(captured, task, None, 0))
    return QuantisedTrial(how, tmp_path / "model.onnx", "onnx", lambda module: task.evaluate(module.eval()))


@pytest.fixture
def training(task: CheckedTask, captured: Captured) -> Training:
    return Training(task, FineTuneSettings(epochs=3, learning_rate=1.0), captured.module, 0, SILENT)


def evaluated(path: Path, captured: Captured, task: CheckedTask) -> float:
    return task.evaluate(RuntimeModule(manifest.read(path), captured.module, captured.example_inputs).eval())


def test_a_measured_trial_keeps_the_int8_file_alone(
    trial: QuantisedTrial, captured: Captured, task: CheckedTask, tmp_path: Path
) -> None:
    accuracy, artifact, details = trial.measured(captured)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.manifest.json"]
    assert accuracy == evaluated(artifact.path, captured, task)
    told = details["quantised"]
    assert (told["scheme"], told["calibrated_on"]) == ("per-tensor", "8 training batches")
    assert told["sqnr_db"] < 10  # the scales see to it
    assert artifact.size_bytes != told["float_size_bytes"]
    assert details["parity_error"] < 1e-5


def test_training_for_int8_gets_back_what_the_file_alone_loses(
    trial: QuantisedTrial, training: Training, captured: Captured, task: CheckedTask, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in captured.module.state_dict().items()}
    accuracy, artifact, details, network = trial.final(captured, training)
    told = details["quantised"]
    aware = told["quantisation_aware"]
    assert told["float_accuracy"] == task.evaluate(captured.module) > 0.9
    assert aware["accuracy_before"] < told["float_accuracy"] - 0.01
    assert aware["accuracy_after"] == accuracy > aware["accuracy_before"] + 0.03
    assert aware["kept"] is True
    assert aware["steps"] == 90
    assert evaluated(artifact.path, captured, task) == accuracy
    assert isinstance(network, Pruned)
    assert evaluated(tmp_path / "float.onnx", captured, task) == pytest.approx(task.evaluate(network.module), abs=0.001)
    for name, value in captured.module.state_dict().items():
        assert torch.equal(value, before[name]), name  # the dense network is another's


def test_training_that_makes_it_worse_is_taken_back(
    trial: QuantisedTrial, training: Training, captured: Captured, task: CheckedTask, tmp_path: Path
) -> None:
    spoilt = replace(training, settings=replace(training.settings, learning_rate=1000.0, epochs=1, distillation=0.0))
    accuracy, artifact, details, network = trial.final(captured, spoilt)
    aware = details["quantised"]["quantisation_aware"]
    assert aware["kept"] is False
    assert aware["accuracy_after"] < aware["accuracy_before"] == accuracy
    assert evaluated(artifact.path, captured, task) == accuracy
    assert evaluated(tmp_path / "float.onnx", captured, task) == details["quantised"]["float_accuracy"]
    assert network is captured


def test_what_keeps_the_accuracy_is_not_trained(trial: QuantisedTrial, training: Training) -> None:
    task = check_task(Blobs(0.0))
    even = capture(task.model().eval(), task.example_inputs())
    fine = replace(trial, how=replace(trial.how, calibration=calibration_of(even, task, None, 0)))
    accuracy, _, details, network = fine.final(even, training)
    assert details["quantised"]["sqnr_db"] > 30
    assert details["quantised"]["float_accuracy"] == pytest.approx(accuracy, abs=0.01)
    assert "quantisation_aware" not in details["quantised"]
    assert network is even


@pytest.mark.parametrize(
    ("least", "accuracy", "wanted"),
    [(None, 0.895, False), (None, 0.885, True), (0.897, 0.895, True), (0.89, 0.895, False), (0.95, 0.9, False)],
)
def test_what_is_too_much(trial: QuantisedTrial, least: float | None, accuracy: float, wanted: bool) -> None:
    assert loses_too_much(replace(trial.how, least_accuracy=least), 0.9, accuracy) is wanted
