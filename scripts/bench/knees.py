#!/usr/bin/env python
"""The staircase of latency over width for several layers on a device, and the knees found in it. Prints JSON.

    scripts/bench/knees.py                       # this machine
    scripts/bench/knees.py --target ssh://pi@board --threads 4

For each layer: `ns` by width, as measured from coarse widths by refining; `steps`, the widths worth having;
`alignment`, the multiple that widths can be rounded up to at no cost, null where not known.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgeprune.cli.progress import PlainProgress
from edgeprune.export.micro import micro_model
from edgeprune.measure.cost_cache import CostCache, timings
from edgeprune.measure.knees import alignment, coarse, refine, steps
from edgeprune.measure.session import Session
from edgeprune.records.operators import ConvSignature, LinearSignature, OperatorSignature
from edgeprune.records.profile import load_profile
from edgeprune.targets.parse import open_target

ROUNDS = 5
LAYERS: dict[str, tuple[int, Callable[[int], OperatorSignature]]] = {
    "conv 3x3 C->C, 28x28": (72, lambda c: ConvSignature(c, c, (28, 28), (3, 3), padding=(1, 1))),
    "conv 3x3 64->C, 14x14": (128, lambda c: ConvSignature(64, c, (14, 14), (3, 3), padding=(1, 1))),
    "conv 1x1 C->64, 28x28": (128, lambda c: ConvSignature(c, 64, (28, 28), (1, 1))),
    "depthwise 3x3 C, 28x28": (128, lambda c: ConvSignature(c, c, (28, 28), (3, 3), padding=(1, 1), groups=c)),
    "linear 197 x 192 -> C": (256, lambda c: LinearSignature(197, 192, c)),
}


def staircase(
    session: Session, cache: CostCache | None, full: int, layer: Callable[[int], OperatorSignature]
) -> dict[str, Any]:
    """Coarse widths, then what refining asks for."""
    times: dict[int, float] = {}
    failed: dict[int, str] = {}
    wanted = coarse(full, least=4)
    for _ in range(ROUNDS):
        signatures = {width: layer(width) for width in wanted}
        found = timings(session, signatures.values(), cache, build=micro_model)
        for width, signature in signatures.items():
            timing = found[signature.key]
            if timing.ns is None:
                failed[width] = timing.error
            else:
                times[width] = timing.ns
        wanted = tuple(width for width in refine(times) if width not in failed)
        if not wanted:
            break
    return {
        "full": full,
        "ns": {width: round(times[width]) for width in sorted(times)},
        "steps": steps(times),
        "alignment": alignment(times),
        "failed": failed,
    }


def main() -> int:
    """All layers on one device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="local")
    parser.add_argument("--profile", default="host")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", action="store_true", help="use and fill the cache of operator costs")
    options = parser.parse_args()
    profile = load_profile(options.profile)
    policy = replace(profile.measurement, threads=options.threads)
    with Session(
        open_target(options.target), profile, policy=policy, progress=PlainProgress(sys.stderr), wait_s=600
    ) as session:
        cache = CostCache.for_session(session) if options.cache else None
        layers = {name: staircase(session, cache, full, layer) for name, (full, layer) in LAYERS.items()}
        machine, runtime = session.machine, session.runtimes.get(policy.runtime)
    said = {"cpu": machine.get("cpu"), "runtime": policy.runtime, **(runtime or {}), "threads": policy.threads}
    print(json.dumps({**said, "layers": layers}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
