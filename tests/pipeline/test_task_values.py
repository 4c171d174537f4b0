"""What a task's parts give: what cannot be used is refused with one error that says what, where and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import TaskError
from edgeprune.pipeline.task import Task, check_task
from tests.pipeline.task_files import line_of, load, write


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("math.nan", "returned nan, not a finite number", "division by zero"),
        ("math.inf", "returned inf, not a finite number", "division by zero"),
        ("91.5", "returned 91.5, not between 0 and 1", "divide by 100"),
        ("-0.1", "returned -0.1, not between 0 and 1", "higher is better"),
        ("1e6", "not between 0 and 1", "higher is better"),
        ("None", "returned None, not a float", "one number"),
        ("True", "returned True, not a float", "one number"),
        ("torch.tensor(0.9)", "not a float", ".item()"),
        ("'0.9'", "returned '0.9', not a float", "one number"),
    ],
)
def test_a_metric_that_is_none_is_refused(tmp_path: Path, value: str, message: str, hint: str) -> None:
    path = write(tmp_path, evaluate=f"def evaluate(self, model): return {value}")
    with pytest.raises(TaskError) as caught:
        load(tmp_path).evaluate(nn.Identity())
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert line_of(path, "def evaluate") in caught.value.message


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.float32(0.5), np.float64(0.5)])
def test_the_ends_of_the_scale_and_numpy_numbers_are_metrics(value: float) -> None:
    class Mine:
        def model(self) -> nn.Module:
            return nn.Identity()

        def example_inputs(self) -> tuple[torch.Tensor, ...]:
            return (torch.ones(1, 1),)

        def evaluate(self, model: nn.Module) -> float:
            return value

    task: Task = Mine()
    metric = check_task(task).evaluate(nn.Identity())
    assert metric == value
    assert type(metric) is float


@pytest.mark.parametrize(
    ("part", "value", "message", "hint"),
    [
        ("model", "nn.Linear(3, 2).state_dict()", "not a torch.nn.Module", "load_state_dict()"),
        ("model", "nn.Linear", "not a torch.nn.Module", "an instance of the class"),
        ("model", "None", "returned None, not a torch.nn.Module", "return the network itself"),
        ("example_inputs", "[[1.0, 2.0]]", "not a tuple of tensors", "one tensor per argument"),
        ("example_inputs", "()", "not a tuple of tensors", "one tensor per argument"),
        ("example_inputs", "torch.tensor(1.0)", "input 0 has no batch", "at least one example"),
        ("example_inputs", "torch.ones(0, 3)", "input 0 has no batch", "at least one example"),
    ],
)
def test_parts_that_return_the_wrong_thing(tmp_path: Path, part: str, value: str, message: str, hint: str) -> None:
    write(tmp_path, **{part: f"def {part}(self): return {value}"})
    task = load(tmp_path)
    with pytest.raises(TaskError) as caught:
        getattr(task, part)()
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_no_batch_at_all_is_refused(tmp_path: Path) -> None:
    write(tmp_path, train_batches="def train_batches(self): return []")
    with pytest.raises(TaskError, match="that gave no batch"):
        list(load(tmp_path).train_batches())


def test_an_iterator_that_is_used_up_after_one_epoch_is_refused(tmp_path: Path) -> None:
    write(
        tmp_path,
        train_batches="""
            once = iter([torch.ones(4, 3)])
            def train_batches(self): return self.once
        """,
    )
    task = load(tmp_path)
    assert len(list(task.train_batches())) == 1
    with pytest.raises(TaskError, match="that gave no batch") as caught:
        list(task.train_batches())
    assert "every call stands for one epoch" in (caught.value.hint or "")


def test_batches_that_cannot_be_iterated_are_refused(tmp_path: Path) -> None:
    write(tmp_path, train_batches="def train_batches(self): return 3")
    with pytest.raises(TaskError, match="returned 3, which cannot be iterated"):
        list(load(tmp_path).train_batches())


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("model(batch).mean().item()", "not a tensor", "without .item()"),
        ("model(batch)", "not a scalar", ".mean()"),
        ("model(batch).mean().detach()", "does not depend on the model's parameters", "detach()"),
    ],
)
def test_a_loss_that_cannot_train_is_refused(tmp_path: Path, value: str, message: str, hint: str) -> None:
    write(tmp_path, loss=f"def loss(self, model, batch): return {value}")
    task = load(tmp_path)
    with pytest.raises(TaskError) as caught:
        task.loss(nn.Linear(3, 2), torch.ones(4, 3))
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_loss_needs_no_gradient_where_none_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path)
    model = nn.Linear(3, 2)
    with torch.no_grad():
        loss = load(tmp_path).loss(model, torch.ones(4, 3))
    assert loss.shape == ()
    assert not loss.requires_grad
