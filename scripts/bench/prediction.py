"""How well is a candidate's cost predicted before it is built? Random candidates, predicted and measured; prints JSON.

    scripts/bench/prediction.py --networks resnet20 dscnn

Per network of `search_models.py`: operators are timed on this machine (those that the user's cache does not know), the
cost model is recalibrated on the dense network and a few others spread over the space, with blocks dropped as often as
in the fresh ones, and then says latency, peak memory and size of fresh candidates with random widths and randomly
dropped blocks, which are built and measured. `before` is without recalibration, knowing the dense network alone. Shares
are of the candidates within the bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_cell import open_session
from search_models import NETWORKS

from edgeprune.cli.progress import open_progress
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.graph.shapes import inner_groups
from edgeprune.importance.base import ImportanceContext
from edgeprune.importance.magnitude import L1
from edgeprune.measure.session import Session
from edgeprune.pipeline.costs import cost_model
from edgeprune.pipeline.export import export
from edgeprune.pipeline.planning import device_timer
from edgeprune.pipeline.space import search_space
from edgeprune.progress import Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import figures_of
from edgeprune.search.base import BlockSpace, SearchSpace
from edgeprune.search.calibration import calibrated
from edgeprune.search.costs import MetricModel
from edgeprune.search.sampling import latin_hypercube, random_candidates

# Any limit makes a figure one that is predicted.
_BUDGET = Budget.parse({"latency": {"p50": "50% of dense"}, "peak_memory": "50% of dense", "size": "50% of dense"})
_BOUNDS = {"latency.p50": (0.05, 0.10), "peak_memory": (0.05, 0.10), "size": (0.01,)}


def main() -> int:
    """Read the options, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--candidates", type=int, default=30, help="that are predicted")
    parser.add_argument("--learn", type=int, default=12, help="whole networks that the model is recalibrated on")
    parser.add_argument("--drop-share", type=float, default=0.15, help="chance of each block to be dropped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in-turn", action="store_true", help="latency alone, in turn with the dense network's")
    options = parser.parse_args()
    found = {}
    with open_progress() as progress:
        for name in options.networks:
            progress.say(f"network {name}")
            found[name] = _network(NETWORKS[name].task(), options, progress)
            print(name, json.dumps(found[name]["shares"]), file=sys.stderr)
    print(json.dumps(found, indent=2))
    return 0


def _network(task: Any, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    started = time.monotonic()
    captured = capture(task.model().eval(), task.example_inputs())
    space = _space(captured)
    learned = (
        latin_hypercube(space, options.learn, options.seed, drop_share=options.drop_share) if options.learn else ()
    )
    fresh = random_candidates(space, options.candidates, options.seed, drop_share=options.drop_share)
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder, open_session(progress) as session:
        path = Path(folder) / "model.onnx"
        artifact = export(captured, path.with_name("dense.onnx"))
        dense = figures_of(session.measure(artifact), artifact, None)
        against = (artifact, dense["latency.p50"].value or 0.0) if options.in_turn else None
        before = cost_model(captured, space, _BUDGET, dense, device_timer(session, progress)).metrics
        timed_s = time.monotonic() - started
        whole = {name: figure.value for name, figure in dense.items() if figure.value is not None}
        seen = [(Candidate(), whole)]
        seen += [(candidate, _measured(captured, candidate, path, session, against)) for candidate in learned]
        after = {figure: _recalibrated(model, seen) for figure, model in before.items()}
        rows = []
        for number, candidate in enumerate(fresh):
            measured = _measured(captured, candidate, path, session, against)
            said = {
                figure: {
                    "measured": measured.get(figure),
                    "before": before[figure].predict(candidate),
                    "after": after[figure].predict(candidate),
                }
                for figure in before
            }
            progress.say(f"{number + 1} of {len(fresh)}: {json.dumps(said)}")
            rows.append({"candidate": candidate.to_json(), "figures": said})
    return {
        "groups": len(space.groups),
        "blocks": [block.name for block in space.blocks],
        "dense": {figure: dense[figure].value for figure in before},
        "seconds_until_model": round(timed_s, 1),
        "seconds": round(time.monotonic() - started, 1),
        "shares": {when: _shares(rows, when) for when in ("before", "after")},
        "candidates": rows,
    }


def _space(captured: Captured) -> SearchSpace:
    """As a run has it, with all blocks that can be dropped."""
    scores = L1().score(captured.module, captured.groups, ImportanceContext())
    space = search_space(captured, scores, round_to=8, min_width=8)
    known = {group.name for group in space.groups}
    blocks = inner_groups(captured).items()
    return replace(
        space,
        blocks=tuple(
            BlockSpace(name, 0.0, tuple(group for group in groups if group in known)) for name, groups in blocks
        ),
    )


def _measured(
    captured: Captured, candidate: Candidate, path: Path, session: Session, against: tuple[Artifact, float] | None
) -> dict[str, float]:
    """The figures; against the dense network and its median in ms, latency alone: the ratio times that, as in a run."""
    model = captured if candidate.is_dense else captured.prune(candidate)
    artifact = export(model, path)
    if against is not None:
        ratio = session.compare(artifact, against[0], workers=3).ratio
        return {} if ratio is None else {"latency.p50": ratio * against[1]}
    figures = figures_of(session.measure(artifact), artifact, None)
    return {name: figure.value for name, figure in figures.items() if figure.value is not None}


def _recalibrated(model: MetricModel, seen: Sequence[tuple[Candidate, Mapping[str, float]]]) -> MetricModel:
    values = [(candidate, figures[model.figure]) for candidate, figures in seen if model.figure in figures]
    return calibrated(model, values, 0.0)  # no limit: it is to be right everywhere


def _shares(rows: Sequence[Mapping[str, Any]], when: str) -> dict[str, Any]:
    found = {}
    for figure, bounds in _BOUNDS.items():
        pairs = [row["figures"][figure] for row in rows if row["figures"].get(figure, {}).get("measured") is not None]
        errors = [abs(pair[when] / pair["measured"] - 1) for pair in pairs]
        if errors:
            found[figure] = {
                **{f"within {bound:.0%}": round(sum(e <= bound for e in errors) / len(errors), 3) for bound in bounds},
                "median error": round(statistics.median(errors), 4),
                "largest error": round(max(errors), 4),
                "candidates": len(errors),
            }
    return found


if __name__ == "__main__":
    sys.exit(main())
