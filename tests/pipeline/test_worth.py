"""When a difference in latency is called a gain."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from edgeprune.pipeline.worth import _judged, compressed_sizes
from edgeprune.records.comparison import Comparison, Verdict
from edgeprune.records.measurement import Outcome

SPARSE, DENSE = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("compared", "verdict"), [("faster", "faster"), ("slower", "slower"), ("no difference", "no gain")]
)
def test_verdict(compared: Verdict, verdict: str) -> None:
    found = _judged({}, Comparison(SPARSE, DENSE, Outcome.OK, None, compared, 0.5, 0.4, 0.6, (1.0, 2.0)))
    assert (found.verdict, found.ratio, found.ratio_bounds) == (verdict, 0.5, (0.4, 0.6))
    assert found.latency_ms == (2.0, 1.0)  # dense, sparse


def test_a_failed_comparison_says_why() -> None:
    found = _judged({}, Comparison(SPARSE, DENSE, Outcome.THROTTLED, None, message="too hot"))
    assert (found.latency_ms, found.ratio, found.verdict, found.message) == (None, None, None, "too hot")


def test_sizes(tmp_path: Path) -> None:
    data = b"\0" * 5000 + bytes(range(256))
    (tmp_path / "x").write_bytes(data)
    sizes = compressed_sizes(tmp_path / "x")
    assert sizes["file"] == 5256
    assert sizes["gzip"] == len(gzip.compress(data, 9, mtime=0)) < 1000
    assert sizes["xz"] == len(lzma.compress(data)) < 1000
