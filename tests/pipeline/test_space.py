from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import StorageError
from edgeprune.graph.captured import Captured
from edgeprune.pipeline.space import importance_scores, search_space, widths
from edgeprune.pipeline.task import CheckedTask
from edgeprune.records.candidate import Candidate


@pytest.mark.parametrize(
    ("units", "channels", "round_to", "min_width", "expected"),
    [
        (32, 1, 8, 8, (8, 16, 24, 32)),
        (32, 1, 8, 9, (16, 24, 32)),
        (30, 1, 8, 1, (8, 16, 24, 30)),
        (6, 1, 8, 8, (6,)),
        (4, 1, 1, 1, (1, 2, 3, 4)),
        (12, 64, 8, 8, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)),  # attention heads of 64 channels
        (12, 6, 8, 8, (4, 8, 12)),
        (6, 16, 8, 40, (3, 4, 5, 6)),
    ],
)
def test_widths_are_rounded_in_channels(
    units: int, channels: int, round_to: int, min_width: int, expected: tuple[int, ...]
) -> None:
    assert widths(units, channels, round_to, min_width) == expected


def test_the_estimate_is_the_cost_of_the_pruned_graph(captured: Captured, half: Candidate, tmp_path: Path) -> None:
    scores = {group.name: np.arange(group.units, dtype=float) for group in captured.groups}
    space = search_space(captured, scores, round_to=4, min_width=4)
    assert space.estimate(Candidate()) == {"macs": 1.0, "params": 1.0, "activations": 1.0, "memory": 1.0}
    cost, dense = captured.prune(half).cost(), captured.cost()
    estimate = space.estimate(half)
    assert estimate["macs"] == cost.macs / dense.macs < 0.6
    assert estimate["params"] == cost.params / dense.params
    widest = space.groups[0]
    assert widest.keep(4) == tuple(range(widest.units - 4, widest.units))


def test_ignored_layers_are_not_searched(captured: Captured) -> None:
    scores = {group.name: np.arange(group.units, dtype=float) for group in captured.groups}
    first, *others = (group.name for group in captured.groups)
    space = search_space(captured, scores, round_to=1, min_width=1, ignored=[first])
    assert [group.name for group in space.groups] == others != []


def test_importance_is_computed_once_and_kept(captured: Captured, task: CheckedTask, tmp_path: Path) -> None:
    path = tmp_path / "importance.json"

    def scores(name: str, seed: int, reuse: bool) -> dict[str, list[float]]:
        found = importance_scores(captured, task, path, name=name, seed=seed, reuse=reuse)
        return {group: list(values) for group, values in found.items()}

    stale = scores("random", 9, reuse=True)
    first = scores("taylor", 0, reuse=False)
    assert first != stale
    assert scores("random", 9, reuse=True) == first
    path.write_text(path.read_text().replace(f'"{captured.groups[0].name}"', '"other"'))
    with pytest.raises(StorageError, match="of another model"):
        scores("taylor", 0, reuse=True)
    path.write_text("{")
    with pytest.raises(StorageError, match="cannot read the importance scores"):
        scores("taylor", 0, reuse=True)
    path.write_text('{"schema": "edgeprune.importance/9"}')
    with pytest.raises(StorageError, match="unknown schema"):
        scores("taylor", 0, reuse=True)
