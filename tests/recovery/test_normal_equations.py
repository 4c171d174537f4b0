from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune.recovery.normal_equations import NormalEquations


def problem(groups: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(groups, 200, 3, generator=generator, dtype=torch.float64) + 2
    weights = torch.randn(groups, 3, 2, generator=generator, dtype=torch.float64)
    return x, x @ weights + 5 + 0.3 * torch.randn(groups, 200, 2, generator=generator, dtype=torch.float64)


def accumulated(x: torch.Tensor, y: torch.Tensor) -> NormalEquations:
    equations = NormalEquations.zeros(x.shape[0], x.shape[2], y.shape[2])
    for part in range(0, x.shape[1], 64):
        equations.add(x[:, part : part + 64], y[:, part : part + 64])
    return equations


@pytest.mark.parametrize("groups", [1, 3])
def test_agrees_with_least_squares(groups: int) -> None:
    x, y = problem(groups)
    equations = accumulated(x, y)
    solution = equations.solve(torch.zeros(groups, 4, 2).double(), ridge=1e-12, weights=True, intercept=True)
    for group in range(groups):
        rows = np.hstack([x[group].numpy(), np.ones((200, 1))])
        expected, *_ = np.linalg.lstsq(rows, y[group].numpy(), rcond=None)
        np.testing.assert_allclose(solution[group].numpy(), expected, rtol=1e-8)
    expected_error = (x @ solution[:, :-1] + solution[:, -1:] - y).square().sum() / (y - y.mean(1, True)).square().sum()
    assert equations.error(solution) == pytest.approx(float(expected_error), rel=1e-8)
    assert equations.count == 200


def test_without_an_intercept_the_given_one_stays() -> None:
    x, y = problem()
    start = torch.tensor([[[0.0, 0], [0, 0], [0, 0], [4, 6]]]).double()
    solution = accumulated(x, y).solve(start, ridge=1e-12, weights=True, intercept=False)
    expected, *_ = np.linalg.lstsq(x[0].numpy(), y[0].numpy() - [4, 6], rcond=None)
    np.testing.assert_allclose(solution[0, :3].numpy(), expected, rtol=1e-8)
    assert solution[0, 3].tolist() == [4, 6]


def test_the_intercept_alone_is_the_mean_of_what_is_missing() -> None:
    x, y = problem()
    start = torch.ones(1, 4, 2).double()
    solution = accumulated(x, y).solve(start, ridge=1e-12, weights=False, intercept=True)
    assert torch.equal(solution[:, :3], start[:, :3])
    torch.testing.assert_close(solution[0, 3], (y - x @ start[:, :3]).mean(1)[0])


def test_the_ridge_keeps_what_the_data_does_not_say() -> None:
    """Two inputs that are always equal: their sum is known, their difference stays as it was."""
    x, _ = problem()
    x = x[:, :, [0, 0]]
    solution = accumulated(x, 3 * x[:, :, :1]).solve(
        torch.tensor([[[2.0], [-1], [0]]]).double(), ridge=1e-6, weights=True, intercept=True
    )
    assert float(solution[0, 0] + solution[0, 1]) == pytest.approx(3, abs=1e-4)
    assert float(solution[0, 0] - solution[0, 1]) == pytest.approx(3, abs=1e-4)


def test_what_is_not_finite_changes_nothing() -> None:
    x, y = problem()
    x[0, 0, 0] = float("inf")
    equations = accumulated(x, y)
    solution = equations.solve(torch.zeros(1, 4, 2).double(), ridge=1e-4, weights=True, intercept=True)
    assert not equations.error(solution) < equations.error(torch.zeros(1, 4, 2).double())
