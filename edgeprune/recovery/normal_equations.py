"""Least squares from accumulated normal equations: memory does not grow with the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NormalEquations"]

_CHUNK = 2**23  # elements of X at a time, in double precision


@dataclass(slots=True)
class NormalEquations:
    """XᵀX and XᵀY in double precision, with a column of ones last in X; every leading index g is its own problem."""

    xx: Tensor  # (g, d + 1, d + 1)
    xy: Tensor  # (g, d + 1, o)
    yy: Tensor  # (g, o)

    @classmethod
    def zeros(cls, groups: int, inputs: int, outputs: int) -> NormalEquations:
        """Nothing seen yet: `inputs` and `outputs` are those of one group."""
        xx = torch.zeros(groups, inputs + 1, inputs + 1, dtype=torch.float64)
        xy = torch.zeros(groups, inputs + 1, outputs, dtype=torch.float64)
        return cls(xx, xy, torch.zeros(groups, outputs, dtype=torch.float64))

    @property
    def count(self) -> float:
        """Rows seen."""
        return float(self.xx[0, -1, -1])

    @staticmethod
    def rows_at_once(width: int) -> int:
        """How many rows of so many elements are to be handed to `add` in one piece."""
        return max(1, _CHUNK // max(width, 1))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Rows of X (g, rows, d) and of Y (g, rows, o)."""
        x = torch.cat([x.double(), torch.ones(*x.shape[:2], 1, dtype=torch.float64)], dim=2)
        y = y.double()
        self.xx += x.mT @ x
        self.xy += x.mT @ y
        self.yy += y.square().sum(dim=1)

    def error(self, solution: Tensor) -> float:
        """Σ(Xw - Y)² over Σ(Y - mean Y)² for a solution (g, d + 1, o), the last row of which is the intercept."""
        squares = self.yy - 2 * (solution * self.xy).sum(dim=1) + (solution * (self.xx @ solution)).sum(dim=1)
        variation = self.yy - self.xy[:, -1].square() / max(self.count, 1.0)
        return float(squares.sum().clamp(min=0) / variation.sum().clamp(min=torch.finfo(torch.float64).tiny))

    def solve(self, start: Tensor, *, ridge: float, weights: bool, intercept: bool) -> Tensor:
        """The solution near `start` (g, d + 1, o): argmin Σ(Xw - Y)² + λ Σ(w - start)², intercept without penalty.

        λ is `ridge` times the mean variance of the inputs. Only the parts that are asked for change.
        """
        residual = self.xy - self.xx @ start
        means, mean_residual = self.xx[:, :-1, -1:] / self.count, residual[:, -1:] / self.count
        change = torch.zeros_like(start)
        if weights:
            gram, right = self.xx[:, :-1, :-1], residual[:, :-1]
            if intercept:
                gram = gram - self.count * means @ means.mT
                right = right - self.count * means @ mean_residual
            scale = gram.diagonal(dim1=1, dim2=2).mean(dim=1)
            diagonal = (ridge * scale).clamp(min=torch.finfo(torch.float64).tiny)[:, None, None]
            factor, failed = torch.linalg.cholesky_ex(gram + diagonal * torch.eye(gram.shape[-1], dtype=gram.dtype))
            if not bool(failed.any()):
                change[:, :-1] = torch.cholesky_solve(right, factor)
        if intercept:
            change[:, -1:] = mean_residual - means.mT @ change[:, :-1]
        return start + change
