"""Prune random networks at random and compare with a reference that knows nothing of the engine; prints JSON.

    scripts/bench/random_graphs.py --examples 2000 --seed 1

The same property as tests/graph/test_random_graphs.py. A failure is named by its seed: --examples 1 --seed S repeats
it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> int:
    """One program per seed; exit code 1 where one fails."""
    from tests.graph.random_checks import check
    from tests.graph.random_programs import generate

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000, help="how many networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first network; the next one has the next seed")
    parser.add_argument("--steps", type=int, default=7, help="most steps between the first and last layers")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    failures: list[dict[str, Any]] = []
    candidates = groups = prunable = 0
    start = time.perf_counter()
    for seed in range(options.seed, options.seed + options.examples):
        choose = random.Random(seed)
        program = generate(lambda given: choose.choice(list(given)), choose.randint(1, options.steps))  # noqa: B023  at once
        try:
            with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
                checked = check(program, seed, Path(folder) if seed % 20 == 0 else None)
        except Exception as error:
            failures.append(
                {"seed": seed, "steps": len(program.steps), "error": f"{type(error).__name__}: {error}"[:300]}
            )
            print(f"seed {seed}: {failures[-1]['error']}", file=sys.stderr)
            continue
        candidates += checked.candidates
        groups += checked.groups
        prunable += checked.candidates > 0
    row = {
        "examples": options.examples,
        "with_prunable_groups": prunable,
        "candidates": candidates,
        "groups_pruned": groups,
        "failures": failures,
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(row, indent=2))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
