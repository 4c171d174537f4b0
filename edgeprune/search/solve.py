"""Solve a problem exactly, as a mixed-integer programme (HiGHS through scipy)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.search.options import Options
from edgeprune.search.problem import LOSS, RELAXATION, Choice, Infeasible, Problem, Solution, predicted_loss
from edgeprune.search.programme import Linear, Programme

__all__ = ["solve"]

GAP = 0.004  # relative: how far from the optimum a solution may be
_NODES = 20_000  # where to stop: counted, so that the same problem has the same solution on any machine
_SECONDS = 600.0  # and where the machine is so slow that no one would wait
_INFEASIBLE = 2  # scipy's status
_LARGE = 30_000  # columns, from which on widths are sought near those of the relaxation
_UNUSED = 1e-6
_NEIGHBOURS = 2
_LADDER = (0.002, 0.02, 0.2)  # how far above the least relaxation limits are held, one after the other
_MOST_RELAXED = 1e4  # limits are at most so many times exceeded
_TIE = 1e-4  # how much the loss weighs beside another objective: it decides between equals


def solve(problem: Problem, *, gap: float = GAP, seconds: float = _SECONDS) -> Solution | Infeasible:
    """The choice with the least objective, to a relative `gap`; Infeasible where there is none.

    Deterministic unless `seconds` run out. A limit counts as held to 1e-6 of it.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    programme = Programme(problem, Options.of(problem))
    relaxed = programme.variable(upper=_MOST_RELAXED) if problem.minimise == RELAXATION else None
    for figure, limit in problem.limits.items():
        _limit(programme, figure, limit, relaxed)
    for figure, limit in problem.caps.items():
        _limit(programme, figure, limit, None)
    objective = _objective(programme, relaxed)
    objective.add([programme.variable(low=1.0)], [objective.constant])  # so that the gap is of the whole
    for choice in problem.excluded:
        programme.differ(choice, problem.distance)
    for choice in problem.too_large:
        programme.narrower(choice)
    rows, columns, values = programme.entries()
    size = len(programme.upper)
    cost = objective.dense(size)
    scale = 1e3 / max(float(np.abs(cost).max(initial=0.0)), 1e-30)
    matrix = csr_array((values, (rows, columns)), shape=(len(programme.low), size))
    constraints = LinearConstraint(matrix, np.asarray(programme.low), np.asarray(programme.high))
    options: Any = {"mip_rel_gap": gap, "node_limit": _NODES, "time_limit": seconds}
    lower, upper = np.asarray(programme.lower), np.asarray(programme.upper)

    def run(integral: NDArray[np.uint8], upper: NDArray[np.float64]) -> Any:
        bounds = Bounds(lower, upper)
        with _silenced():
            return milp(cost * scale, integrality=integral, bounds=bounds, constraints=constraints, options=options)

    integral = np.asarray(programme.integral, dtype=np.uint8)
    bound = -np.inf
    found: Any = None
    if size > _LARGE:  # the relaxation gives the bound, and says near which widths to look
        root = run(np.zeros_like(integral), upper)
        if root.x is None:
            return Infeasible(proved=root.status == _INFEASIBLE)
        bound = float(root.fun)
        if relaxed is not None and (held := _held(problem, float(root.x[relaxed]), seconds)) is not None:
            return held
        options["mip_rel_gap"] = gap / 4  # the rest of it is the relaxation's
        found = run(integral, _near(programme, root.x, upper))
    if found is None or found.x is None:
        found = run(integral, upper)
    if found.x is None:
        return Infeasible(proved=found.status == _INFEASIBLE)
    if bound == -np.inf:
        bound = float(found.mip_dual_bound)
    choice = programme.chosen(found.x)
    return Solution(choice, _value(problem, choice), _gap(float(found.fun), bound))


def _held(problem: Problem, least: float, seconds: float) -> Solution | None:
    """A choice that relaxes by hardly more than `least`, which no choice is below; None where none is found.

    What branches towards the least relaxation takes minutes to find any choice at all. Where the limits stand fixed
    just above it, what seeks the least loss takes seconds.
    """
    for more in _LADDER:
        limits = {
            figure: limit + least * (1.0 + more) * (abs(limit) or 1.0) for figure, limit in problem.limits.items()
        }
        found = solve(replace(problem, minimise=LOSS, limits=limits), seconds=seconds)
        if isinstance(found, Solution):
            value = _value(problem, found.choice)
            return Solution(found.choice, value, _gap(value, max(least - _TIE, 0.0)))  # the loss broke ties in `least`
    return None


@contextmanager
def _silenced() -> Iterator[None]:
    """HiGHS prints remarks of its own to the process's standard output, which is for data."""
    flush = ctypes.CDLL(None).fflush  # what C still holds back would come out later
    sys.stdout.flush()
    flush(None)
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _near(programme: Programme, relaxation: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper bounds that leave each group the widths that the relaxation uses, and their neighbours."""
    upper = upper.copy()
    for columns in programme.x.values():
        used = np.flatnonzero(relaxation[columns] > _UNUSED)
        if used.size:  # none where the block is dropped
            far = np.abs(np.arange(columns.size)[:, None] - used).min(axis=1) > _NEIGHBOURS
            upper[columns[far]] = 0.0
    return upper


def _limit(programme: Programme, figure: str, limit: float, relaxed: int | None) -> None:
    """One row per step: the figure over its limit is at most 1 (plus what is relaxed)."""
    whole, steps = _figure(programme, figure)
    unit = abs(limit) or 1.0
    for step in steps:
        expression = whole.plus(step)
        columns = [*expression.columns, np.asarray([] if relaxed is None else [relaxed], dtype=np.int64)]
        values = [*(v / unit for v in expression.values), np.asarray([] if relaxed is None else [-1.0])]
        high = (limit - expression.constant) / unit
        programme.row(np.concatenate(columns), np.concatenate(values), -np.inf, high)


def _objective(programme: Programme, relaxed: int | None) -> Linear:
    problem = programme.problem
    loss = programme.loss()
    if problem.minimise == LOSS:
        return loss
    objective = Linear()
    if relaxed is not None:
        objective.add([relaxed], [1.0])
        unit = 1.0
    else:
        whole, steps = _figure(programme, problem.minimise)
        if len(steps) > 1:  # the largest step: a variable that none exceeds
            unit = max(problem.limits.get(problem.minimise, 0.0), *(_most(whole.plus(step)) for step in steps))
            largest = programme.variable(upper=1.0)
            for step in steps:
                columns = [*step.columns, np.asarray([largest], dtype=np.int64)]
                values = [*(v / unit for v in step.values), np.asarray([-1.0])]
                programme.row(np.concatenate(columns), np.concatenate(values), -np.inf, -step.constant / unit)
            whole.add([largest], [unit])
        else:
            whole = whole.plus(steps[0])
            unit = _most(whole)
        objective = whole
    most = _most(loss) or 1.0
    for columns_, values_ in zip(loss.columns, loss.values, strict=True):
        objective.add(columns_, values_, _TIE * unit / most)
    return objective


def _figure(programme: Programme, figure: str) -> tuple[Linear, tuple[Linear, ...]]:
    if figure == LOSS:
        return programme.loss(), (Linear(),)
    return programme.parts(programme.problem.metrics[figure])


def _most(expression: Linear) -> float:
    """No less than the expression can be, with every column at 1."""
    return abs(expression.constant) + sum(float(np.abs(values).max(initial=0.0)) for values in expression.values)


def _value(problem: Problem, choice: Choice) -> float:
    """The objective at the choice, from the tables themselves."""
    if problem.minimise == LOSS:
        return predicted_loss(problem.space, choice)
    candidate = problem.space.candidate(choice.widths, choice.dropped)
    if problem.minimise != RELAXATION:
        return problem.metrics[problem.minimise].predict(candidate)
    worst = 0.0
    for figure, limit in problem.limits.items():
        value = predicted_loss(problem.space, choice) if figure == LOSS else problem.metrics[figure].predict(candidate)
        worst = max(worst, (value - limit) / (abs(limit) or 1.0))
    return worst


def _gap(value: float, bound: float) -> float:
    """How far the bound lies below the solution, as a share of it."""
    return max(value - bound, 0.0) / abs(value) if value else 0.0
