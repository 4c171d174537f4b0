from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from edgeprune.errors import TaskError
from edgeprune.training_data import reproducible, reseed, scalar_loss


def draws() -> tuple[float, float, float]:
    return torch.rand(1).item(), random.random(), float(np.random.rand())


def test_every_generator_follows_seed_and_epoch() -> None:
    drawn = []
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        reseed(seed, epoch)
        drawn.append(draws())
    assert drawn[0] == drawn[1]
    for other in drawn[2:]:
        assert all(a != b for a, b in zip(drawn[0], other, strict=True))


def test_reproducible_gives_the_generators_back_even_after_an_error() -> None:
    reseed(9)
    expected = draws()
    reseed(9)

    @reproducible(1)
    def fail() -> None:
        draws()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert draws() == expected


def test_scalar_loss_takes_one_element_of_any_shape() -> None:
    loss = torch.ones(1, 1, requires_grad=True)
    assert scalar_loss(loss, "here").shape == ()
    with pytest.raises(TaskError, match=r"returned a tensor of shape \(2,\).*\(here\)"):
        scalar_loss(torch.ones(2, requires_grad=True), "here")
