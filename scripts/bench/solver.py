#!/usr/bin/env python
"""How long the solver takes on problems of the size of real networks. Prints JSON.

    scripts/bench/solver.py                   # sizes of ResNet-50, MobileNet-V2, and 300 groups

Each problem has 16 widths per group, staircase costs, four budgets (one of them memory, a row per step of the
schedule), and asks for the least loss, for the proof that a tighter budget cannot be met, and for the least relaxation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.search.base import BlockSpace, GroupSpace, SearchSpace
from edgeprune.search.costs import CostModel, MetricModel, Term
from edgeprune.search.problem import Problem, Solution
from edgeprune.search.solve import solve

OPTIONS = 16
SHARES = {"latency.p50": 0.5, "energy": 0.6, "size": 0.5, "peak_memory": 0.7}  # of the dense model's


def main() -> int:
    """Solve, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one of the networks")
    options = parser.parse_args()
    networks = {
        "mobilenet_v2": (7, 17, 1),
        "resnet50": (4, 16, 2),
        "50 groups, 16 blocks": (6, 22, 2),
        "300 groups": (19, 140, 2),
    }
    report = {
        name: measure(network(np.random.default_rng(0), *shape))
        for name, shape in networks.items()
        if options.only in (None, name)
    }
    print(json.dumps(report, indent=2))
    return 0


def network(random: np.random.Generator, stages: int, blocks: int, inner: int) -> SearchSpace:
    """Residual blocks in stages: one group per stage's shared channels, `inner` groups in each block."""
    groups: list[GroupSpace] = []
    spaces: list[BlockSpace] = []
    chain: list[tuple[str, str, tuple[str, ...], float]] = []  # producer, consumer, blocks, positions

    def group(name: str, units: int) -> str:
        widths = tuple(units * (i + 1) // OPTIONS for i in range(OPTIONS))
        sensitivity = float(random.lognormal(-3, 0.8))
        shares = tuple(sensitivity * (1 - w / units) ** float(random.uniform(1.2, 2.5)) for w in widths)
        groups.append(GroupSpace(name, units, tuple(random.random(units)), widths, tuple(sorted(shares)[::-1])))
        return name

    before = group("stem", 64)
    for stage in range(stages):
        positions = 3136 / 4 ** min(stage, 3)
        units = 64 * 2 ** min(stage, 3)
        shared = group(f"stage{stage}", 4 * units)
        for index in range(stage, blocks, stages):
            name = f"block{index}"
            droppable = (name,) if index >= stages else ()
            inside = [group(f"{name}.{i}", units) for i in range(inner)]
            chain.append((before, inside[0], droppable, positions))
            chain.extend((a, b, droppable, 9 * positions) for a, b in itertools.pairwise(inside))
            chain.append((inside[-1], shared, droppable, positions))
            if droppable:
                spaces.append(BlockSpace(name, float(random.lognormal(-2, 0.7)), tuple(inside)))
            else:
                chain.append((before, shared, (), positions))
            before = shared
    return SearchSpace(tuple(groups), lambda _: {}, tuple(spaces), CostModel(costs(random, groups, chain)))


def costs(
    random: np.random.Generator, groups: list[GroupSpace], chain: list[tuple[str, str, tuple[str, ...], float]]
) -> dict[str, MetricModel]:
    """Latency is a staircase of the widths, energy nearly follows it; memory has a step per operator."""
    widths = {group.name: group.widths for group in groups}

    def padded(name: str, step: int) -> NDArray[np.float64]:
        return np.asarray([math.ceil(w / step) * step for w in widths[name]], dtype=np.float64)

    latency, energy, size, steps = [], [], [], []
    for index, (a, b, gate, positions) in enumerate(chain):
        shape = (widths[a], widths[b])
        kind = "conv3x3" if positions > 3136 else "conv1x1"
        staircase = np.outer(padded(a, 4), padded(b, 16)) * positions * 1e-9 * float(random.uniform(0.7, 1.4))
        traffic = np.add.outer(padded(a, 1), padded(b, 1)) * positions * 1e-9
        weights = np.outer(padded(a, 1), padded(b, 1)) * 4.0 * (9 if kind == "conv3x3" else 1)
        latency.append(Term(f"op{index}", kind, (a, b), shape, staircase + 20 * traffic, gate))
        energy.append(Term(f"op{index}", kind, (a, b), shape, 2 * staircase + 90 * traffic, gate))
        size.append(Term(f"op{index}", "weight", (a, b), shape, weights, gate))
        live = [
            Term(f"{name}@{index}", "tensor", (name,), (widths[name],), padded(name, 1) * positions * 4, gate)
            for name in {a, b}
        ]
        steps.append(
            (*sorted(live, key=lambda term: term.name), Term(f"weights{index}", "weight", (a, b), shape, weights, gate))
        )
    metrics = (
        MetricModel("latency.p50", tuple(latency), offset=0.2),
        MetricModel("energy", tuple(energy), offset=0.1),
        MetricModel("size", tuple(size), offset=5e4),
        MetricModel("peak_memory", (), tuple(steps), offset=1e6),
    )
    return {metric.figure: metric for metric in metrics}


def measure(space: SearchSpace) -> dict[str, Any]:
    """Seconds and gaps of the questions."""
    assert space.costs is not None
    dense = space.costs.predict(space.candidate({}))
    limits = {figure: share * dense[figure] for figure, share in SHARES.items()}
    impossible = {figure: 0.03 * limit for figure, limit in limits.items()}
    questions = {
        "least loss": Problem(space, space.costs.metrics, limits),
        "tight": Problem(space, space.costs.metrics, {figure: 0.5 * limit for figure, limit in limits.items()}),
        "infeasible": Problem(space, space.costs.metrics, impossible),
        "relaxation": Problem(space, space.costs.metrics, impossible, "relaxation"),
        "least latency": Problem(
            space, space.costs.metrics, {f: v for f, v in limits.items() if f != "latency.p50"}, "latency.p50"
        ),
    }
    report: dict[str, Any] = {"groups": len(space.groups), "blocks": len(space.blocks)}
    for name, problem in questions.items():
        start = time.monotonic()
        found = solve(problem)
        seconds = round(time.monotonic() - start, 2)
        if isinstance(found, Solution):
            report[name] = {
                "seconds": seconds,
                "gap": round(found.gap, 5),
                "value": found.value,
                "dropped": len(found.choice.dropped),
            }
        else:
            report[name] = {"seconds": seconds, "proved": found.proved}
    return report


if __name__ == "__main__":
    raise SystemExit(main())
