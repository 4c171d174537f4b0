"""Searches on a simulated network, for the tests of the loop."""

from __future__ import annotations

import json
from pathlib import Path

from edgeprune.records.budget import Budget
from edgeprune.records.result import Result
from edgeprune.search.base import Evaluate, StrategyFactory
from edgeprune.search.journal import Journal
from edgeprune.search.loop import SearchLimits, search
from edgeprune.search.uniform import Uniform
from edgeprune.testing.simulation import SimulatedNetwork

NETWORK = SimulatedNetwork()
FEASIBLE = Budget.parse({"latency": {"p50": "60% of dense"}, "size": "60% of dense", "accuracy": {"max_drop": "6pp"}})


def run(
    folder: Path,
    budget: Budget = FEASIBLE,
    *,
    factory: StrategyFactory = Uniform,
    evaluate: Evaluate = NETWORK,
    resume: bool = False,
    max_trials: int = 40,
    pauses: list[float] | None = None,
) -> Result:
    with Journal.open(folder, {"budget": budget.to_json()}, resume=resume) as journal:
        return search(
            lambda dense: factory(NETWORK.space(), budget, dense, seed=0),
            evaluate,
            journal,
            budget,
            limits=SearchLimits(max_trials=max_trials),
            sleep=(pauses if pauses is not None else []).append,
        )


def attempts(folder: Path, outcome: str) -> list[tuple[int, str]]:
    """Number and message of what was tried again because of such an outcome, from the journal."""
    entries = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
    return [(e["number"], e["message"]) for e in entries if e["kind"] == "attempt" and e["outcome"] == outcome]
