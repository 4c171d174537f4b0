"""An evolutionary search over the same space: what is not linear can be planned with, too, but nothing is proved.

Tournaments, uniform crossover, small steps of width; what is within the limits beats what is not, and of the latter
the smaller excess wins (Deb 2000). Where there is no cost model, the space's estimate stands for it: a figure is
taken as a fixed part and one that grows with MACs or parameters, and measurements say how large they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.trial import Trial
from edgeprune.search.base import SearchSpace
from edgeprune.search.costs import MetricModel
from edgeprune.search.planned import Planned
from edgeprune.search.problem import LOSS, RELAXATION, Choice, Infeasible, Problem, Solution, predicted_loss

__all__ = ["Evolutionary"]

_POPULATION = 40
_GENERATIONS = 80
_PATIENCE = 15  # generations without progress
_FIXED = 0.1  # of the dense model's figure, that is assumed not to shrink

_ESTIMATES: Mapping[str, tuple[str, ...]] = {
    "size": ("params", "macs"),
    "peak_memory": ("activations", "memory", "params", "macs"),
    "latency": ("macs", "params"),
    "energy": ("macs", "params"),
}

Genome = tuple[int, ...]  # per group the index of a width, per block 1 where it is dropped
Rank = tuple[float, float]  # excess over the limits, objective


class Evolutionary(Planned):
    """Solves by evolution; the same for the same seed."""

    def __init__(self, space: SearchSpace, budget: Budget, baseline: Trial, *, seed: int = 0) -> None:
        """On the space's cost model, or on its estimate where there is none."""
        models = _estimated(space, baseline) if space.costs is None else space.costs.metrics
        super().__init__(space, budget, baseline, models)
        self._seed = seed
        self._solved = 0
        self._elite: list[Genome] = []  # the best of earlier problems: a new one differs little from them

    def solve(self, problem: Problem) -> Solution | Infeasible:
        """The best of the last generation, after every single step from it was tried."""
        self._solved += 1
        random = np.random.default_rng((self._seed, self._solved))
        counts = [*(len(group.widths) for group in problem.space.groups), *(2 for _ in problem.space.blocks)]
        ranks: dict[Genome, Rank] = {}

        def rank(genome: Genome) -> Rank:
            if genome not in ranks:
                ranks[genome] = self._rank(problem, genome)
            return ranks[genome]

        population = [*_uniforms(problem.space), *self._elite]
        while len(population) < _POPULATION:
            population.append(_mutated(population[int(random.integers(len(population)))], counts, random, often=0.5))
        best, idle = min(population, key=rank), 0
        for _ in range(_GENERATIONS):
            children = [_child(population, rank, counts, random) for _ in range(_POPULATION)]
            population = sorted({*population, *children}, key=lambda genome: (rank(genome), genome))[:_POPULATION]
            idle = 0 if rank(population[0]) < rank(best) else idle + 1
            best = min(population[0], best, key=rank)
            if idle >= _PATIENCE:
                break
        best = _descended(best, counts, rank)
        excess, value = rank(best)
        if excess > 0:
            return Infeasible(proved=False)
        self._elite = [best, *(genome for genome in self._elite if genome != best)][: _POPULATION // 4]
        return Solution(_choice(problem.space, best), value, float("inf"))

    def _rank(self, problem: Problem, genome: Genome) -> Rank:
        space = problem.space
        choice = _choice(space, genome)
        candidate = space.candidate(choice.widths, choice.dropped)
        loss = predicted_loss(space, choice)
        values = {LOSS: loss}
        for figure in {*problem.limits, *problem.caps, problem.minimise} - {LOSS, RELAXATION}:
            values[figure] = problem.metrics[figure].predict(candidate)
        ratios = [values[figure] / limit - 1 for figure, limit in problem.limits.items() if limit > 0]
        over = sum(max(values[figure] / limit - 1, 0.0) for figure, limit in problem.caps.items())
        over += sum(_difference(choice, other) < problem.distance for other in problem.excluded)
        over += sum(not _narrower(choice, other) for other in problem.too_large)
        if problem.minimise == RELAXATION:
            return over, max(0.0, *ratios) if ratios else 0.0
        return over + sum(max(ratio - 1e-9, 0.0) for ratio in ratios), values[problem.minimise]


@dataclass(frozen=True, slots=True, eq=False)
class _Estimated(MetricModel):
    """A figure whose one class is the dense model's figure times the estimate's share."""

    share: Callable[[Candidate], float] = lambda _: 1.0

    def by_kind(self, candidate: Candidate) -> dict[str, float]:
        """The share."""
        return {"estimate": self.share(candidate)}

    def predict(self, candidate: Candidate) -> float:
        """The fixed part and that which shrinks."""
        return self.offset + self.weights["estimate"] * self.share(candidate)


def _estimated(space: SearchSpace, baseline: Trial) -> dict[str, MetricModel]:
    """A model for every figure that was measured of the dense model."""
    names = space.estimate(Candidate()) if space.groups else {}
    models: dict[str, MetricModel] = {}
    for figure, dense in baseline.figures.items():
        known = [name for name in _ESTIMATES.get(figure.partition(".")[0], ()) if name in names]
        if not dense.value or not known:
            continue

        def share(candidate: Candidate, name: str = known[0]) -> float:
            return space.estimate(candidate)[name]

        weights = {"estimate": (1 - _FIXED) * dense.value}
        models[figure] = _Estimated(figure, (), weights=weights, offset=_FIXED * dense.value, share=share)
    return models


def _uniforms(space: SearchSpace) -> list[Genome]:
    """Uniform networks from dense to the narrowest, with all blocks."""
    found = []
    for share in np.linspace(1.0, 0.0, 12):
        widths = space.uniform(float(share))
        kept = (group.widths.index(widths[group.name]) for group in space.groups)
        found.append((*kept, *(0 for _ in space.blocks)))
    return list(dict.fromkeys(found))


def _child(
    population: list[Genome], rank: Callable[[Genome], Rank], counts: list[int], random: np.random.Generator
) -> Genome:
    first, second = (
        min((population[int(random.integers(len(population)))] for _ in range(2)), key=rank) for _ in range(2)
    )
    mixed = tuple(a if coin else b for a, b, coin in zip(first, second, random.random(len(counts)) < 0.5, strict=True))
    return _mutated(mixed, counts, random, often=min(0.5, 1.5 / len(counts)))


def _mutated(genome: Genome, counts: list[int], random: np.random.Generator, *, often: float) -> Genome:
    """Some genes a step or two up or down; a block comes or goes."""
    hit = random.random(len(counts)) < often
    steps = random.choice([-2, -1, 1, 2], size=len(counts))
    return tuple(
        gene if not chosen else 1 - gene if count == 2 else int(min(max(gene + step, 0), count - 1))
        for gene, count, chosen, step in zip(genome, counts, hit, steps, strict=True)
    )


def _descended(genome: Genome, counts: list[int], rank: Callable[[Genome], Rank]) -> Genome:
    """Single steps from the genome, as long as one is better."""
    while True:
        near = [
            (*genome[:place], gene + step, *genome[place + 1 :])
            for place, gene in enumerate(genome)
            for step in (-1, 1)
            if 0 <= gene + step < counts[place]
        ]
        better = min(near, key=rank, default=genome)
        if rank(better) >= rank(genome):
            return genome
        genome = better


def _choice(space: SearchSpace, genome: Genome) -> Choice:
    flags = genome[len(space.groups) :]
    dropped = frozenset(block.name for block, gone in zip(space.blocks, flags, strict=True) if gone)
    inside = {name for block in space.blocks if block.name in dropped for name in block.groups}
    widths = {
        group.name: group.widths[gene]
        for group, gene in zip(space.groups, genome, strict=False)
        if group.name not in inside
    }
    return Choice(widths, dropped)


def _difference(choice: Choice, other: Choice) -> int:
    """In how many groups and blocks two choices differ."""
    widths = sum(choice.widths.get(name) != width for name, width in other.widths.items())
    return widths + len(choice.dropped ^ other.dropped)


def _narrower(choice: Choice, other: Choice) -> bool:
    less = any(name in choice.widths and choice.widths[name] < width for name, width in other.widths.items())
    return less or bool(choice.dropped - other.dropped)
