"""advise, on the digits project and on an ONNX file, measured here by ONNX Runtime."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.cli.main import run_cli
from edgeprune.errors import CannotMeasureError
from edgeprune.export.quantize import SCHEMES
from edgeprune.graph.capture import capture
from edgeprune.measure import session
from edgeprune.pipeline import advise as pipeline
from edgeprune.pipeline.advise import METHODS, Advice, advise
from edgeprune.pipeline.export import export
from edgeprune.pipeline.task import load_task
from edgeprune.records.budget import Budget
from edgeprune.records.profile import DeviceProfile, load_profile
from tests.pipeline.small_project import write_project

QUICK = """
name: quick
extends: host
measurement: {min_time: 50ms, max_time: 1s, memory_workers: 1}
"""


def quick(path: Path | str) -> DeviceProfile:
    """The profile with hardly any warm-up."""
    profile = load_profile(path)
    return replace(profile, measurement=replace(profile.measurement, warmup_s=0.05))


@pytest.fixture(scope="module", autouse=True)
def short_measurements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing here is about how narrow an interval is; nor about who else measures on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_COMPARE_S", 0.2)
        patch.setitem(advise.__kwdefaults__, "workers", 3)
        patch.setattr(pipeline, "load_profile", quick)
        patch.setenv("EDGEPRUNE_LOCK", str(tmp_path_factory.mktemp("lock") / "device.lock"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    (folder / "quick.yaml").write_text(QUICK)
    return folder


@pytest.fixture(scope="module")
def digits(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Advice:
    task = load_task("task.py:Small", folder)
    captured = capture(task.model().eval(), task.example_inputs())
    budget = Budget.parse({"size": "50% of dense", "accuracy": {"max_drop": "5pp"}})
    profile = folder / "quick.yaml"
    methods = ("structured", "2:4", "int8")
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        found = advise(captured, task=task, profile=profile, budget=budget, methods=methods, round_to=4, min_width=4)
    assert not list(temporary.iterdir())
    return found


def test_every_method_is_measured(digits: Advice) -> None:
    names = [method.name for method in digits.methods]
    assert names[:3] == ["structured 30%", "structured 50%", "2:4"]
    assert [name.split(",")[0] for name in names[3:5]] == ["int8 per tensor", "int8 per channel"]
    assert names[5].startswith("structured 50% + int8 per ")
    for method in digits.methods:
        assert not method.missing
        assert set(method.ratios) == {"latency", "peak_memory", "size", "download"}
        latency = method.ratios["latency"]
        assert latency.lower is not None
        assert latency.upper is not None
        assert latency.lower <= latency.value <= latency.upper
        assert method.ratios["peak_memory"].upper is None  # one worker
        assert all(figure.kind == "measured" for figure in method.figures.values())
        accuracy, dense = method.figures["accuracy"].value, digits.dense["accuracy"].value
        assert accuracy is not None
        assert dense is not None
        assert method.accuracy_change == accuracy - dense


def test_sizes_are_those_of_the_methods(digits: Advice) -> None:
    methods = {method.name: method for method in digits.methods}
    assert methods["2:4"].ratios["size"].value == pytest.approx(1, abs=0.01)  # zeros are stored like any number
    assert methods["2:4"].ratios["download"].value == pytest.approx(0.59, abs=0.05)
    # Half of the channels: a quarter of the middle layer's weights, half of the last one's.
    assert methods["structured 50%"].ratios["size"].value == pytest.approx(0.35, abs=0.03)
    assert methods["structured 30%"].ratios["size"].value > methods["structured 50%"].ratios["size"].value
    tensor, channel, both = (method.ratios["size"].value for method in digits.methods[3:])
    assert 0.25 < tensor < channel < 0.4  # one byte in place of four; scales per channel cost a little
    assert both < tensor * 0.6


def test_accuracy_is_what_the_runtime_computes(digits: Advice) -> None:
    methods = {method.kind: method for method in digits.methods}
    dense = digits.dense["accuracy"].value
    assert dense is not None
    assert dense > 0.9
    int8 = methods["int8"].accuracy_change
    assert int8 is not None
    assert abs(int8) < 0.03
    assert methods["int8"].recovery == "none: the dense model; then calibrated, not trained"
    assert methods["structured"].recovery == "batch-norm re-estimation"
    assert methods["structured"].trains
    assert not methods["int8"].trains
    assert digits.calibrated_on == "8 training batches"


def test_the_recommendation_is_for_the_budget(digits: Advice) -> None:
    advised = digits.recommendation
    assert advised.needs == ("size",)
    chosen = next(method for method in digits.methods if method.name == advised.method)
    assert chosen.ratios["size"].value <= 0.5
    assert chosen.check is not None
    assert [entry.state.value for entry in chosen.check.limits if entry.limit.metric == "size"] == ["met"]
    met = [m for m in digits.methods if m.ratios["size"].value <= 0.5]
    assert len(met) == 4
    assert chosen.lost == min(m.lost for m in met if m.lost is not None)
    assert "misses size 50% of dense" in advised.text
    data = json.loads(json.dumps(digits.to_json(), allow_nan=False))
    assert data["schema"] == "edgeprune.advice/1"
    assert data["methods"][0]["ratios"]["latency"]["change"] in ("less", "more", "none")
    assert data["measured_on"]["runtime"] == "onnxruntime"


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("file") / "tiny.onnx"
    export(capture(Tiny().eval(), (torch.randn(2, 16),)), path)
    return path


def test_a_file_with_examples_has_fidelity(
    onnx_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = tmp_path / "examples.npy"
    np.save(examples, np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32))
    command = ["advise", str(onnx_file), "--profile", str(folder / "quick.yaml"), "--calibration", str(examples)]
    assert run_cli([*command, "--method", "int8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [method["kind"] for method in report["methods"]] == ["int8", "int8"]
    for method in report["methods"]:
        assert method["accuracy_change"] is None
        assert method["agreement"] > 0.8
        assert 0 < method["relative_error"] < 0.1
        assert "accuracy" not in method["figures"]
    assert report["calibrated_on"] == "the calibration data"


def test_a_file_alone_says_that_its_accuracy_is_not_known(
    onnx_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = folder / "two.yaml"
    profile.write_text(QUICK.replace("memory_workers: 1", "memory_workers: 2"))
    command = ["advise", str(onnx_file), "--profile", str(profile), "--method", "unstructured"]
    assert run_cli([*command, "--max-drop", "1pp"]) == 0
    text = capsys.readouterr().out
    assert "accuracy unknown: there is no task, and no examples (--calibration)" in text
    assert "measured on:" in text
    assert re.search(r"unstructured 80%: .*gains download 0\.[2-6]", text)
    assert re.search(r"MB, \d\.\d{3} x \(\d\.\d{3} to \d\.\d{3}\)", text)  # of memory, from two workers
    assert text.splitlines()[1].startswith("dense")
    assert text.splitlines()[-1].startswith("recommended: ")


def test_what_cannot_be_made_is_told_with_its_reason(folder: Path) -> None:
    torch.manual_seed(0)
    captured = capture(nn.Sequential(nn.Linear(6, 4), nn.Tanh()).eval(), (torch.randn(2, 6),))
    found = advise(captured, profile=folder / "quick.yaml", methods=("structured",))
    assert [method.missing[""] for method in found.methods] == ["the model has no channels that can go"] * 2
    assert found.recommendation.method is None


def test_the_accuracy_of_int8_is_not_told_where_the_device_computes_something_else(
    folder: Path, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = session.Session.outputs
    monkeypatch.setattr(
        session.Session, "outputs", lambda *args: {name: array * 1.5 for name, array in real(*args).items()}
    )
    monkeypatch.setattr("edgeprune.export.quantize.OnnxQuantizer.schemes", SCHEMES[:1])
    examples = tmp_path / "examples.npy"
    np.save(examples, np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32))
    profile = folder / "quick.yaml"
    (method,) = advise(capture(onnx_file), profile=profile, calibration=examples, methods=("int8",)).methods
    assert method.agreement is None
    assert method.relative_error is None
    assert method.missing["accuracy"].startswith("the device computes int8 otherwise than this machine")
    assert method.missing["accuracy"].endswith("50.0% of the outputs")
    assert "latency" in method.ratios


def test_a_device_out_of_reach_is_exit_code_3(onnx_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["advise", str(onnx_file), "--target", "ssh://nobody@127.0.0.1:1", "--method", "2:4"]) == 3
    assert "127.0.0.1" in capsys.readouterr().err


def test_a_dense_model_that_cannot_be_measured_ends_it(folder: Path, onnx_file: Path) -> None:
    profile = quick(folder / "quick.yaml")
    hasty = replace(profile, measurement=replace(profile.measurement, deadline_s=0.001))
    with pytest.raises(CannotMeasureError, match="the dense model could not be measured: TIMEOUT"):
        advise(capture(onnx_file), profile=hasty, methods=("2:4",))


def test_methods_of_the_command_are_those_of_the_pipeline() -> None:
    from edgeprune.cli import advise as command

    assert command._METHODS == METHODS
