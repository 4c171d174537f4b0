"""A simulated network on a simulated device: strategies and the loop can be tried without torch and without a board.

Groups form a chain of layers; latency is a staircase of the widths (what the device computes is padded to a multiple
of its vector length), with noise that depends on the trial's number alone, so that a resumed run sees the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import GroupSpace, SearchSpace
from edgeprune.search.costs import CostModel, MetricModel, Term

__all__ = ["SimulatedNetwork"]


@dataclass(frozen=True, slots=True)
class SimulatedNetwork:
    """A chain of layers with `units` outputs each. Call it to evaluate a candidate, as `search` does.

    `sensitivity` is the accuracy that group 0 loses when all of it goes; each later group loses less. Fine-tuning
    (a FINAL trial) gives back the share `recovered`. `memory_limit` in bytes makes wider candidates run out of memory.
    """

    units: tuple[int, ...] = (32, 64, 64, 96)
    step: int = 8
    vector: int = 8
    noise: float = 0.003
    sensitivity: float = 0.3
    recovered: float = 0.8
    dense_accuracy: float = 0.95
    memory_limit: float = math.inf
    modelled: bool = True  # the space has a cost model

    def space(self) -> SearchSpace:
        """The groups, each with scores that fall with the unit's index, and the exact share of MACs and parameters."""
        groups = tuple(
            GroupSpace(
                name=f"layer{index}",
                units=units,
                scores=tuple(1.0 / (1 + unit) for unit in range(units)),
                widths=(*range(self.step, units, self.step), units),
                losses=tuple(
                    self.sensitivity / (1 + index) * (1 - width / units) ** 2
                    for width in (*range(self.step, units, self.step), units)
                ),
            )
            for index, units in enumerate(self.units)
        )
        return SearchSpace(groups, self.estimate, costs=self._costs(groups) if self.modelled else None)

    def _costs(self, groups: tuple[GroupSpace, ...]) -> CostModel:
        """The exact costs of each layer as terms, one tenth too high in latency."""

        def metric(figure: str, factor: float, offset: float, vector: int) -> MetricModel:
            widths = [tuple(math.ceil(width / vector) * vector for width in group.widths) for group in groups]
            first = np.asarray(widths[0], dtype=np.float64) * vector
            terms = [Term("layer0", "layer", (groups[0].name,), (groups[0].widths,), factor * first)]
            for index, (before, after) in enumerate(pairwise(groups)):
                table = factor * np.outer(widths[index], widths[index + 1]).astype(np.float64)
                terms.append(Term(after.name, "layer", (before.name, after.name), (before.widths, after.widths), table))
            return MetricModel(figure, tuple(terms), offset=offset)

        metrics = (
            metric("latency.p50", 1.1e-5, 0.02, self.vector),
            metric("size", 4.0, 1000.0, 1),
            metric("peak_memory", 8.0, 2000.0, 1),
        )
        return CostModel({metric.figure: metric for metric in metrics})

    def estimate(self, candidate: Candidate) -> Mapping[str, float]:
        """MACs and parameters as shares of the dense network's."""
        share = self._macs(self._widths(candidate), 1) / self._macs(self.units, 1)
        return {"macs": share, "params": share}

    def __call__(self, candidate: Candidate, stage: Stage, number: int) -> Trial:
        """The trial, as a run on a device would report it."""
        widths = self._widths(candidate)
        size = 1000.0 + 4.0 * self._macs(widths, 1)
        lost = sum(
            self.sensitivity / (1 + index) * (1 - width / units) ** 2
            for index, (width, units) in enumerate(zip(widths, self.units, strict=True))
        )
        accuracy = max(self.dense_accuracy - lost * (1 - self.recovered if stage is Stage.FINAL else 1.0), 0.0)
        figures = {"accuracy": Figure(accuracy, accuracy)}
        outcome, message = Outcome.OK, ""
        if stage.is_measured:
            figures["size"] = Figure(size, size)
            if size > self.memory_limit:
                outcome, message = Outcome.OOM, "the model does not fit"
                figures["latency.p50"] = figures["peak_memory"] = Figure(None, missing="OOM: the model does not fit")
            else:
                figures["latency.p50"] = self._latency(widths, number)
                figures["peak_memory"] = Figure(2 * size, 2 * size * 1.01)
        return Trial(number, stage, candidate, outcome.value, figures, message=message, seconds=1.0)

    def _latency(self, widths: tuple[int, ...], number: int) -> Figure:
        exact = 0.02 + self._macs(widths, self.vector) * 1e-5
        value = exact * (1 + self.noise * random.Random(number).uniform(-1, 1))
        return Figure(value, value * (1 + self.noise))

    def _widths(self, candidate: Candidate) -> tuple[int, ...]:
        return tuple(len(candidate.kept.get(f"layer{index}", range(units))) for index, units in enumerate(self.units))

    @staticmethod
    def _macs(widths: tuple[int, ...], vector: int) -> float:
        padded = [math.ceil(width / vector) * vector for width in (vector, *widths)]
        return float(sum(before * after for before, after in pairwise(padded)))
