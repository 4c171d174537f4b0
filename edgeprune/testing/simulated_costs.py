"""Random networks on a simulated device whose true costs are known; the cost model handed out is biased.

What a real device does to a measurement is here, too: noise, a slow drift, outliers, throttling. All of it depends on
the trial's number, and on how often it was measured before, alone: a resumed run sees the same.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import BlockSpace, GroupSpace, SearchSpace
from edgeprune.search.costs import CostModel, MetricModel, Term
from edgeprune.search.problem import Choice, predicted_loss

__all__ = ["SimulatedDevice", "simulated_device"]

_RECOVERED = {Stage.SCREEN: 0.0, Stage.MEASURE: 0.0, Stage.TUNE: 0.5, Stage.FINAL: 0.7}
_EXACT = ("size",)
_DENSE_ACCURACY = 0.93


@dataclass(slots=True, eq=False)
class SimulatedDevice:
    """Call it to evaluate a candidate, as `search` does. `truth` is what the device really does, `space` what is known.

    `noise` is the relative standard deviation of a measured figure, of which the upper bound allows for two; `drift`
    how far the device wanders to either side; `outliers` the share of measurements that come out 5 to 30 % too high,
    `throttled` of those that have to be done again.
    """

    space: SearchSpace
    truth: CostModel
    budget: Budget
    seed: int = 0
    noise: float = 0.004
    drift: float = 0.002
    outliers: float = 0.03
    throttled: float = 0.05
    _measured: Counter[int] = field(default_factory=Counter)  # by number of trial

    def __call__(self, candidate: Candidate, stage: Stage, number: int) -> Trial:
        """The trial, as a run on the device would report it."""
        loss = predicted_loss(self.space, Choice.of(candidate, self.space))
        accuracy = max(_DENSE_ACCURACY - (1 - _RECOVERED[stage]) * loss, 0.0)
        figures = {"accuracy": Figure(accuracy, accuracy)}
        if not stage.is_measured:
            return Trial(number, stage, candidate, Outcome.OK.value, figures)
        before = self._measured[number]
        self._measured[number] += 1
        random = np.random.default_rng((self.seed, number, before))
        if random.random() < self.throttled and before == 0:
            return Trial(number, stage, candidate, Outcome.THROTTLED.value, figures, message="the clock went down")
        wandered = 1 + self.drift * math.sin(number / 3 + self.seed)
        for figure, true in self.truth.predict(candidate).items():
            if figure in _EXACT:
                figures[figure] = Figure(true, true)
                continue
            value = true * wandered * float(np.exp(self.noise * random.standard_normal()))
            if random.random() < self.outliers:
                value *= float(random.uniform(1.05, 1.3))
            figures[figure] = Figure(value, value * (1 + 2 * self.noise))
        return Trial(number, stage, candidate, Outcome.OK.value, figures, seconds=1.0)

    def limits(self) -> dict[str, float]:
        """Per figure of the device its absolute limit."""
        dense = {figure: Figure(value, value) for figure, value in self.truth.predict(Candidate()).items()}
        bounds = {limit.figure: limit.bound(dense) for limit in self.budget.limits if not limit.is_accuracy}
        return {figure: bound for figure, bound in bounds.items() if bound is not None}

    def within(self, candidate: Candidate, room: float = 0.0) -> bool:
        """The true figures are within the limits; of those that are measured with noise, `room` below them."""
        true = self.truth.predict(candidate)
        return all(
            true[figure] <= limit * (1.0 if figure in _EXACT else 1 - room) for figure, limit in self.limits().items()
        )

    def least_loss(self, room: float = 0.0) -> float:
        """The least predicted loss of all candidates that are truly within the limits; infinite where none is."""
        found = math.inf
        for candidate, loss in self._all():
            if loss < found and self.within(candidate, room):
                found = loss
        return found

    def _all(self) -> Iterator[tuple[Candidate, float]]:
        for gone in itertools.product((False, True), repeat=len(self.space.blocks)):
            dropped = frozenset(b.name for b, g in zip(self.space.blocks, gone, strict=True) if g)
            inside = {name for block in self.space.blocks if block.name in dropped for name in block.groups}
            free = [group for group in self.space.groups if group.name not in inside]
            for widths in itertools.product(*(group.widths for group in free)):
                choice = Choice(dict(zip((group.name for group in free), widths, strict=True)), dropped)
                yield self.space.candidate(choice.widths, dropped), predicted_loss(self.space, choice)


def simulated_device(
    seed: int, *, groups: int = 12, options: int = 8, blocks: int = 2, bias: float = 0.2
) -> SimulatedDevice:
    """A random chain of layers with residual blocks and a budget of one to three limits that can just be met.

    Layers are of three classes; the model that is handed out is wrong by up to `bias` in each class, and by 2 % in
    each layer.
    """
    random = np.random.default_rng(seed)
    spaces = tuple(_group(random, index, options) for index in range(groups))
    inner = tuple(
        BlockSpace(f"block{index}", float(random.uniform(0.02, 0.12)), (f"g{1 + 2 * index}",))
        for index in range(min(blocks, (groups - 1) // 2))
    )
    exact = _costs(random, spaces, inner)
    wrong = {name: float(random.uniform(1 - bias, 1 + bias)) for name in ("conv", "pointwise", "tensor")}
    handed = {
        figure: metric if figure in _EXACT else _biased(random, metric, wrong) for figure, metric in exact.items()
    }
    space = SearchSpace(spaces, lambda _: {"macs": 1.0}, inner, CostModel(handed))
    named = ["latency.p50", "size", "peak_memory"][: int(random.integers(1, 4))]
    # Absolute limits: one relative to the dense model would be as wrong as the dense model's own measurement.
    dense = CostModel(exact).predict(Candidate())
    limits = {name: float(random.uniform(0.45, 0.8)) * dense[name] for name in named}
    parts: dict[str, object] = {name: f"{limit:.0f}B" for name, limit in limits.items() if name != "latency.p50"}
    budget = Budget.parse({**parts, "latency": {"p50": f"{limits['latency.p50']:.6f}ms"}})
    return SimulatedDevice(space, CostModel(exact), budget, seed)


def _group(random: np.random.Generator, index: int, options: int) -> GroupSpace:
    units = options * int(random.choice([4, 8, 16]))
    widths = tuple(units * (place + 1) // options for place in range(options))
    sensitivity, power = float(random.lognormal(-3, 0.7)), float(random.uniform(1.2, 2.5))
    losses = tuple(sensitivity * (1 - width / units) ** power for width in widths)
    return GroupSpace(f"g{index}", units, tuple(random.random(units).tolist()), widths, losses)


def _costs(
    random: np.random.Generator, groups: tuple[GroupSpace, ...], blocks: tuple[BlockSpace, ...]
) -> dict[str, MetricModel]:
    """What the device does: latency is a staircase of the widths, memory the largest sum of two tensors."""
    home = {name: block.name for block in blocks for name in block.groups}
    pixels = [float(random.choice([256, 1024, 4096])) for _ in groups]
    tensors = [
        Term(f"{g.name}.tensor", "tensor", (g.name,), (g.widths,), _padded(g, 1) * p * 4, _gates(home, g.name))
        for g, p in zip(groups, pixels, strict=True)
    ]
    latency: list[Term] = []
    size: list[Term] = []
    for index, (a, b) in enumerate(itertools.pairwise(groups)):
        kind = ("conv", "pointwise")[int(random.integers(2))]
        taps = 9.0 if kind == "conv" else 1.0
        step = int(random.choice([4, 8, 16]))
        stairs = np.outer(_padded(a, 4), _padded(b, step)) * taps * pixels[index + 1] * 1e-8 * random.uniform(0.6, 1.5)
        shape, gates = (a.widths, b.widths), _gates(home, a.name, b.name)
        latency.append(Term(f"op{index}", kind, (a.name, b.name), shape, stairs, gates))
        weights = np.outer(_padded(a, 1), _padded(b, 1)) * taps * 4
        size.append(Term(f"w{index}", "weight", (a.name, b.name), shape, weights, gates))
    moved = tuple(replace(term, table=term.table * 2e-8) for term in tensors)
    whole = sum(float(term.table.max()) for term in latency)
    return {
        "latency.p50": MetricModel("latency.p50", (*latency, *moved), offset=0.03 * whole),
        "size": MetricModel("size", tuple(size), offset=2000.0),
        "peak_memory": MetricModel("peak_memory", tuple(size), tuple(itertools.pairwise(tensors)), offset=20000.0),
    }


def _biased(random: np.random.Generator, metric: MetricModel, wrong: dict[str, float]) -> MetricModel:
    def spoilt(term: Term) -> Term:
        return replace(
            term, table=term.table * wrong.get(term.kind, 1.0) * float(np.exp(0.02 * random.standard_normal()))
        )

    steps = tuple(tuple(spoilt(term) for term in step) for step in metric.steps)
    return replace(metric, terms=tuple(spoilt(term) for term in metric.terms), steps=steps)


def _padded(group: GroupSpace, step: int) -> NDArray[np.float64]:
    return np.asarray([math.ceil(width / step) * step for width in group.widths], dtype=np.float64)


def _gates(home: dict[str, str], *names: str) -> tuple[str, ...]:
    return tuple(sorted({home[name] for name in names if name in home}))
