from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import UsageError
from edgeprune.export.base import FloatModel, Quantizer
from edgeprune.export.layout import as_file, as_network
from edgeprune.export.runtime_module import RuntimeModule
from edgeprune.export.tflite_quantizer import DYNAMIC, STATIC, TfliteQuantizer
from edgeprune.export.tflite_runner import TfliteRunner
from edgeprune.graph.capture import capture
from edgeprune.pipeline.export import export
from edgeprune.pipeline.quantisation import sqnr_db
from tests.export.tflite_models import RUNTIMES, needed

ROWS = 64


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Floor(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.floor()


def pictures(seed: int, rows: int = ROWS) -> Tensor:
    """Four kinds, told apart by the channel and the half that is bright; the last ones are ten times as bright."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, 12, 12, generator=generator) * 0.3
    kinds = torch.arange(rows) % 4
    for row, kind in enumerate(kinds):
        x[row, kind % 3, : 6 + 6 * int(kind == 3)] += 1.5
    return x


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A trained network, its .tflite file with images last, and three batches of which the middle one is the widest."""
    needed("tflite")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(40):
        loss = nn.functional.cross_entropy(net(pictures(step)), torch.arange(ROWS) % 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    captured = capture(net.eval(), (pictures(0, 2),))
    folder = tmp_path_factory.mktemp("int8")
    artifact = export(captured, folder / "net.tflite", format="tflite:layout=nhwc")
    batches = [(pictures(100),), (4 * pictures(101),), (pictures(102),)]
    model = FloatModel(captured.module, captured.example_inputs, artifact)
    int8 = TfliteQuantizer().quantize(model, folder / "int8.tflite", batches, STATIC)
    return captured, model, batches, int8


def test_is_a_quantizer_whose_dynamic_scheme_is_garbage_on_the_old_runtime() -> None:
    assert isinstance(TfliteQuantizer(), Quantizer)
    assert TfliteQuantizer().schemes[0].garbage_on == ()
    assert DYNAMIC.garbage_on == ("tflite-runtime",)


def test_int8_keeps_inputs_and_outputs_and_most_of_the_answers(trained) -> None:  # type: ignore[no-untyped-def]
    captured, model, batches, int8 = trained
    assert int8.inputs == model.artifact.inputs
    assert int8.outputs == model.artifact.outputs
    assert int8.size_bytes < 0.6 * model.artifact.size_bytes
    assert int8.provenance["quantised"] == STATIC.name
    assert int8.provenance["float_sha256"] == model.artifact.sha256
    assert int8.provenance["channels_last"] == {"inputs": ["x"], "outputs": []}
    module = RuntimeModule(int8, captured.module, captured.example_inputs)
    x = pictures(200)
    with torch.no_grad():
        wanted, got = captured.module(x), module(x)
    assert (got.argmax(1) == torch.arange(ROWS) % 4).float().mean() > 0.95
    assert 0 < float((got - wanted).norm() / wanted.norm()) < 0.1
    # The range of the widest batch counts, wherever it stands: an average of ranges would cut it off.
    bright = sqnr_db(module, captured, [batches[1]])
    assert bright is not None
    assert bright > 25


def test_the_same_batches_give_the_same_file_and_others_another(trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, model, batches, int8 = trained
    again = TfliteQuantizer().quantize(model, tmp_path / "again.tflite", batches, STATIC)
    assert again.sha256 == int8.sha256
    other = TfliteQuantizer().quantize(model, tmp_path / "other.tflite", batches[:1], STATIC)
    assert other.sha256 != int8.sha256
    assert other.provenance["calibration_batches"] == 1


@pytest.mark.parametrize(("environment", "runtime"), RUNTIMES.items())
def test_static_int8_is_the_same_in_each_runtime_and_dynamic_is_garbage_in_the_old_one(  # type: ignore[no-untyped-def]
    trained, environment: str, runtime: str, tmp_path: Path
) -> None:
    captured, model, batches, int8 = trained
    where = needed(environment)
    dynamic = TfliteQuantizer().quantize(model, tmp_path / "dynamic.tflite", batches, DYNAMIC)
    x = pictures(300, 8)
    with torch.no_grad():
        wanted = captured.module(x).numpy()
    errors = []
    for artifact in (int8, dynamic):
        runner = TfliteRunner(artifact, where, runtime)
        got = as_network(artifact, runner(as_file(artifact, [x.numpy()])))[0]
        runner.close()
        errors.append(float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted)))
    assert errors[0] < 0.1
    assert (errors[1] > 0.3) is (runtime in DYNAMIC.garbage_on)
    assert errors[1] > 0.3 or errors[1] < 0.1


def test_nothing_to_quantise_and_data_that_do_not_fit_are_refused(trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, model, _, _ = trained
    captured = capture(Floor().eval(), (torch.randn(2, 4),))
    plain = FloatModel(
        captured.module, captured.example_inputs, export(captured, tmp_path / "p.tflite", format="tflite")
    )
    with pytest.raises(UsageError, match="nothing in it to quantise"):
        TfliteQuantizer().quantize(plain, tmp_path / "int8.tflite", [(torch.randn(4, 4),)], STATIC)
    with pytest.raises(UsageError, match=r"cannot quantise net\.tflite"):
        TfliteQuantizer().quantize(model, tmp_path / "int8.tflite", [(torch.randn(4, 2, 12, 12),)], STATIC)
    gone = replace(model, artifact=replace(model.artifact, path=tmp_path / "p.tflite"))
    with pytest.raises(UsageError):
        TfliteQuantizer().quantize(gone, tmp_path / "int8.tflite", [(pictures(1),)], STATIC)
    assert not (tmp_path / "int8.tflite").exists()
