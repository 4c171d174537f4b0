from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeprune.errors import UsageError
from edgeprune.graph.captured import Captured
from edgeprune.pipeline import baseline
from edgeprune.pipeline.task import CheckedTask, load_task
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial


def dense_trial(accuracy: float) -> Trial:
    return Trial(0, Stage.MEASURE, Candidate(), "OK", {"accuracy": Figure(accuracy)})


def test_an_untrained_model_is_said(task: CheckedTask, folder: Path) -> None:
    untrained = load_task("task.py:Untrained", folder)
    model = untrained.model().eval()
    (warning,) = baseline.warnings(untrained, model, dense_trial(untrained.evaluate(model)), Budget())
    assert "hardly better" in warning
    assert "random weights" in warning
    trained = task.model()
    assert baseline.warnings(task, trained, dense_trial(task.evaluate(trained)), Budget()) == []


def test_a_dense_model_below_the_limit_is_said(task: CheckedTask) -> None:
    (warning,) = baseline.warnings(task, task.model(), dense_trial(0.9), Budget.parse({"accuracy": {"min": "95%"}}))
    assert "misses accuracy.min 95%: 90.00 %" in warning


def test_a_limit_above_the_dense_model_is_said(task: CheckedTask) -> None:
    budget = Budget.parse({"size": "150% of dense", "peak_memory": "100% of dense", "latency": {"p50": "60% of dense"}})
    (warning,) = baseline.warnings(task, task.model(), dense_trial(0.9), budget)
    assert warning == "size 150% of dense: the dense model itself meets this limit, which asks for nothing"


def test_a_graph_that_is_not_the_model_is_refused(task: CheckedTask, captured: Captured) -> None:
    model = task.model().eval()
    assert baseline.check_capture(model, captured) < 1e-5
    with torch.no_grad():
        next(iter(model.parameters())).add_(0.1)
    with pytest.raises(UsageError, match="differs from the model by"):
        baseline.check_capture(model, captured)


def test_the_fingerprint_sees_every_weight(task: CheckedTask) -> None:
    model = task.model()
    before = baseline.fingerprint(model)
    assert before == baseline.fingerprint(task.model())
    with torch.no_grad():
        list(model.parameters())[-1][0] += 1e-6
    assert baseline.fingerprint(model) != before
