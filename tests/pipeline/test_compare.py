"""Two files in turn on this machine, in real worker processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.pipeline.compare import compare
from edgeprune.records.measurement import Outcome
from edgeprune.records.profile import MeasurementPolicy
from tests.onnx_models import chain_of_matmuls

QUICK = MeasurementPolicy(warmup_s=0.1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain_of_matmuls(tmp_path_factory.mktemp("models") / "small.onnx", width=256, layers=4).path


def test_twice_the_layers_are_slower(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.measure.session._COMPARE_S", 0.5)
    large = chain_of_matmuls(tmp_path / "large.onnx", width=256, layers=12).path
    found = compare(large, small, policy=QUICK, workers=3)
    assert (found.outcome, found.verdict) == (Outcome.OK, "slower")
    assert found.lower is not None
    assert found.upper is not None
    assert 1.5 < found.lower <= found.ratio <= found.upper < 6
    assert found.p50_ms is not None
    assert found.p50_ms[0] > found.p50_ms[1] > 0
    assert len(found.pairs_ms) == 3
    assert all(len(pairs) >= 3 for pairs in found.pairs_ms)
    assert found.provenance is not None
    assert found.provenance.runtime_version != ""
    assert found.to_json()["schema"] == "edgeprune.comparison/1"


def test_a_file_that_does_not_run_is_an_outcome(small: Path, tmp_path: Path) -> None:
    from edgeprune.export import manifest

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(small.read_bytes())
    described = manifest.read(broken)
    broken.write_bytes(b"not a model")
    with pytest.raises(Exception, match="not the file that its record describes"):
        compare(described, small, policy=QUICK)


def test_two_workers_give_no_interval(small: Path) -> None:
    with pytest.raises(UsageError, match="2 worker processes give no interval") as caught:
        compare(small, small, workers=2)
    assert caught.value.hint == "3 is the least, 8 the default"
