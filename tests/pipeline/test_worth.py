"""When a difference in latency is called a gain."""

from __future__ import annotations

import gzip
import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.pipeline.worth import _judged, compressed_sizes
from edgeprune.records.measurement import Latency, Measurement, Outcome


def measured(p50: float, spread: float = 0.01) -> Measurement:
    latency = Latency(100, p50, 0.0, p50, p50, {"p50": p50}, {"p50": p50 - spread}, {"p50": p50 + spread})
    return Measurement("0" * 64, Outcome.OK, None, latency=latency)


@pytest.mark.parametrize(
    ("dense", "sparse", "verdict"),
    [
        ([1.0, 1.0], [0.5, 0.5], "faster"),
        ([1.0, 1.0], [0.97, 0.97], "no gain"),  # the bounds agree, but it is less than 5 %
        ([1.0, 1.0], [0.9, 1.0], "no gain"),  # the rounds do not agree
        ([1.0, 1.0], [1.2, 1.2], "slower"),
        ([1.0, 1.0], [1.0, 1.0], "no gain"),
    ],
)
def test_verdict(dense: list[float], sparse: list[float], verdict: str) -> None:
    found = _judged({}, [measured(value) for value in dense], [measured(value) for value in sparse])
    assert found.verdict == verdict
    assert found.ratio == pytest.approx(sum(sparse) / sum(dense))


def test_bounds_are_those_that_speak_against_the_claim() -> None:
    found = _judged({}, [measured(1.0), measured(1.1)], [measured(0.5), replace(measured(0.6))])
    assert found.latency_ms == (pytest.approx(1.05), pytest.approx(0.55))
    assert found.ratio_bounds == (pytest.approx(0.49 / 1.11), pytest.approx(0.61 / 0.99))


def test_sizes(tmp_path: Path) -> None:
    data = b"\0" * 5000 + bytes(range(256))
    (tmp_path / "x").write_bytes(data)
    sizes = compressed_sizes(tmp_path / "x")
    assert sizes["file"] == 5256
    assert sizes["gzip"] == len(gzip.compress(data, 9, mtime=0)) < 1000
    assert sizes["xz"] == len(lzma.compress(data)) < 1000
