from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgeprune.errors import TaskError
from edgeprune.recovery.distillation import distance, distillation_loss, recorded


def test_logits_by_divergence_at_temperature() -> None:
    # At T = 2 the teacher's logits (2 ln 3, 0) are the odds 3 : 1, the student's (0, 0) are 1 : 1.
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3.0), 0.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert distance(student, teacher, 2.0).item() == pytest.approx(4 * divergence, rel=1e-5)


def test_batch_is_averaged() -> None:
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    one = distance(student, teacher, 4.0)
    assert distance(student.repeat(5, 1), teacher.repeat(5, 1), 4.0).item() == pytest.approx(one.item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(4,), (2, 1), (2, 3, 4, 4)])
def test_other_shapes_by_squared_error(shape: tuple[int, ...]) -> None:
    assert distance(torch.zeros(shape), torch.full(shape, 3.0), 4.0).item() == 9.0


def test_teacher_sees_what_the_loss_fed_the_student() -> None:
    student, teacher = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        student.weight.copy_(torch.tensor([[1.0, 0.0]]))
        teacher.weight.copy_(torch.tensor([[1.0, 2.0]]))
    with recorded(student) as calls:
        student(torch.tensor([[5.0, 1.0]]))
        student(input=torch.tensor([[5.0, 2.0]]))
        loss = distillation_loss(calls, teacher, 4.0)
    assert loss.item() == (2.0**2 + 4.0**2) / 2
    loss.backward()
    assert student.weight.grad is not None
    assert teacher.weight.grad is None
    student(torch.zeros(1, 2))
    assert len(calls) == 2  # no longer recorded


def test_several_outputs_count_alike_and_integers_do_not() -> None:
    class Two(nn.Module):
        def __init__(self, offset: float) -> None:
            super().__init__()
            self.offset = offset

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a": x + self.offset, "b": x + 3 * self.offset, "index": x.long()}

    student = Two(0.0)
    with recorded(student) as calls:
        student(torch.zeros(4))
        assert distillation_loss(calls, Two(1.0), 4.0).item() == (1.0 + 9.0) / 2


def test_loss_that_never_calls_the_model() -> None:
    with pytest.raises(TaskError, match="did not call the model"):
        distillation_loss([], nn.Identity(), 4.0)
