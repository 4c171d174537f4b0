"""What every answer of one device says, whichever request it is of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeprune.pipeline.compare import compare
from edgeprune.pipeline.measure import measure
from edgeprune.pipeline.operator_times import operator_times
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Outcome
from edgeprune.records.profile import MeasurementPolicy
from edgeprune.targets.local import LocalTarget
from tests.onnx_models import chain_of_matmuls


def _against_itself(artifact: Artifact, **options: Any) -> Any:
    return compare(artifact, artifact, **options)


@pytest.mark.parametrize("request_", [measure, _against_itself, operator_times])
def test_a_missing_runtime_is_an_outcome_that_says_what_to_do(request_: Callable[..., Any], tmp_path: Path) -> None:
    """ncnn is never in the environment of the tests: it has one of its own."""
    artifact = replace(chain_of_matmuls(tmp_path / "chain.ncnn", width=8, layers=1), format="ncnn")
    (tmp_path / "board.yaml").write_text("name: board\nextends: host\nram: 1KiB\n")
    policy = MeasurementPolicy(runtime="ncnn")
    found = request_(artifact, target=LocalTarget(), profile=tmp_path / "board.yaml", policy=policy)
    assert found.outcome is Outcome.NO_RUNTIME
    assert "(edgeprune doctor --install ncnn; or " in found.message
    assert found.warnings[0].startswith("not as the profile 'board' says: memory: ")
