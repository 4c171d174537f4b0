"""The parity of a run's artifact with its saved network, in int8: as near as the run found, and no nearer is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.export import manifest
from edgeprune.graph.capture import capture
from edgeprune.graph.storage import save
from edgeprune.pipeline.export import export
from edgeprune.pipeline.integrity import _parity
from edgeprune.pipeline.quantisation import Calibration, Quantisation, quantise, quantizer_of
from edgeprune.pipeline.subject import Subject
from edgeprune.records.budget import Budget
from edgeprune.records.result import Result
from edgeprune.records.trial import Stage, Trial


@pytest.fixture(scope="module")
def int8_run(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A run whose accepted file is int8, beside the network that it was made of."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("best")
    examples = [(torch.randn(16, 24),) for _ in range(4)]
    network = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    captured = capture(network, examples[0])
    pruned = captured.prune(captured.uniform(0.5))
    save(pruned, folder / "model.pt2")
    quantizer = quantizer_of("onnx")
    how = Quantisation(quantizer, quantizer.schemes[0], Calibration(examples[:3], examples[3:], "tests"))
    made = quantise(pruned, export(pruned, folder / "float.onnx"), folder / "model.onnx", how)
    assert made.sqnr_db is not None
    assert made.sqnr_db > 20
    trial = Trial(1, Stage.FINAL, pruned.candidate, "OK", {}, details={"quantised": {"sqnr_db": made.sqnr_db}})
    result = Result("accepted", Budget(), trial, trial, None, 2, provenance={"files": {"graph": "best/model.pt2"}})
    return Subject("run", made.artifact, folder.parent, result)


def test_noise_as_the_run_found_it(int8_run: Subject) -> None:
    found = _parity(int8_run)
    assert found.state == "ok"
    assert "model.onnx is " in found.message
    assert "dB from model.pt2" in found.message


def test_far_more_noise_than_the_run_found(int8_run: Subject) -> None:
    assert int8_run.result is not None
    assert int8_run.result.best is not None
    better = replace(int8_run.result.best, details={"quantised": {"sqnr_db": 80.0}})
    assert _parity(replace(int8_run, result=replace(int8_run.result, best=better))).state == "failed"
    unknown = replace(int8_run.result.best, details={})
    found = _parity(replace(int8_run, result=replace(int8_run.result, best=unknown)))
    assert (found.state, found.message) == ("unchecked", "the run recorded no SQNR of model.onnx")


def test_a_float_file_of_the_same_network_is_checked_to_round_off(int8_run: Subject) -> None:
    path = int8_run.artifact.path.with_name("float.onnx")
    found = _parity(replace(int8_run, artifact=manifest.read(path)))
    assert found.state == "ok"
    assert "float.onnx computes what model.pt2 does" in found.message


def test_a_format_that_nothing_runs_here(int8_run: Subject, tmp_path: Path) -> None:
    found = _parity(replace(int8_run, artifact=replace(int8_run.artifact, format="coreml")))
    assert (found.state, found.message) == ("unchecked", "no runtime here runs format 'coreml'")
