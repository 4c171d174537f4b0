"""Small and large problems for the solver's tests, and the brute force they are checked with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from edgeprune.search.base import BlockSpace, GroupSpace, SearchSpace
from edgeprune.search.costs import CostModel, MetricModel, Term
from edgeprune.search.problem import Choice, Problem, predicted_loss


def small_space(random: np.random.Generator, groups: int = 4, options: int = 4, blocks: int = 1) -> SearchSpace:
    """A chain of groups of bilinear costs, the second (and third) of them inside of blocks."""
    units = 8 * options
    widths = tuple(range(8, units + 1, 8))
    spaces = tuple(
        GroupSpace(
            f"g{i}",
            units,
            tuple(random.random(units)),
            widths,
            tuple(float(random.uniform(0.2, 1.0)) * (1 - w / units) ** 1.5 for w in widths),
        )
        for i in range(groups)
    )
    inner = tuple(BlockSpace(f"b{j}", float(random.uniform(0.05, 0.6)), (f"g{j + 1}",)) for j in range(blocks))
    home = {name: block.name for block in inner for name in block.groups}

    def table(step: int) -> np.ndarray:
        padded = [math.ceil(w / step) * step for w in widths]
        return np.outer(padded, padded) * float(random.uniform(0.5, 2.0))

    def term(i: int, j: int, step: int) -> Term:
        gates = tuple(sorted({home[name] for name in (f"g{i}", f"g{j}") if name in home}))
        return Term(f"op{i}{j}", f"kind{i % 2}", (f"g{i}", f"g{j}"), (widths, widths), table(step), gates)

    def one(i: int) -> Term:
        gates = (home[f"g{i}"],) if f"g{i}" in home else ()
        return Term(f"act{i}", "act", (f"g{i}",), (widths,), np.asarray(widths, dtype=float), gates)

    chain = [(i, i + 1) for i in range(groups - 1)]
    latency = MetricModel(
        "latency.p50", (*(term(i, j, 16) for i, j in chain), one(0)), weights={"kind1": 0.7}, offset=50
    )
    size = MetricModel("size", tuple(term(i, j, 8) for i, j in chain), offset=10)
    memory = MetricModel("peak_memory", (), tuple((one(i), one(j)) for i, j in chain), offset=3)
    costs = CostModel({m.figure: m for m in (latency, size, memory)})
    return SearchSpace(spaces, lambda _: {}, inner, costs)


def choices(space: SearchSpace) -> Iterator[Choice]:
    """All of them."""
    for gone in itertools.product((False, True), repeat=len(space.blocks)):
        dropped = frozenset(b.name for b, g in zip(space.blocks, gone, strict=True) if g)
        inside = {name for b in space.blocks if b.name in dropped for name in b.groups}
        free = [g for g in space.groups if g.name not in inside]
        for widths in itertools.product(*(g.widths for g in free)):
            yield Choice(dict(zip((g.name for g in free), widths, strict=True)), dropped)


def value(problem: Problem, figure: str, choice: Choice) -> float:
    if figure == "loss":
        return predicted_loss(problem.space, choice)
    return problem.metrics[figure].predict(problem.space.candidate(choice.widths, choice.dropped))


def best(problem: Problem) -> float | None:
    """The least objective by trying everything; None where nothing is within the limits."""
    found = []
    for choice in choices(problem.space):
        ratios = {f: value(problem, f, choice) / limit for f, limit in problem.limits.items()}
        if problem.minimise == "relaxation":
            found.append(max(0.0, *(ratio - 1 for ratio in ratios.values())))
        elif all(ratio <= 1 for ratio in ratios.values()):
            found.append(value(problem, problem.minimise, choice))
    return min(found, default=None)
