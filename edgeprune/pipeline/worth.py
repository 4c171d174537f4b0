"""What sparsity is worth: the compressed size of the file and the latency on the device, both measured."""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import UsageError
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgeprune.records.artifact import Artifact
    from edgeprune.records.measurement import Measurement
    from edgeprune.records.profile import DeviceProfile
    from edgeprune.targets.base import Target

__all__ = ["Worth", "compressed_sizes", "worth"]

_ROUNDS = 2  # dense and sparse in turn, so that a drift of the device meets both
_LEAST = 0.05  # medians of fresh processes on an idle machine differ by some per cent: less is no gain and no loss


@dataclass(frozen=True, slots=True)
class Worth:
    """Dense against sparse, in one session on one device.

    `size_bytes` maps "file", "gzip" and "xz" to (dense, sparse). `latency_ms` are the medians, `ratio` sparse over
    dense with its bounds: each median at its 95 % bound that speaks against the claim, over all rounds. `verdict`:
    "faster" or "slower" where the bounds agree on it and it is 5 % or more, else "no gain"; None, and `message` says
    why, where the latency could not be measured.
    """

    size_bytes: dict[str, tuple[int, int]]
    latency_ms: tuple[float, float] | None
    ratio: float | None
    ratio_bounds: tuple[float, float] | None
    verdict: str | None
    message: str = ""


def compressed_sizes(path: Path) -> dict[str, int]:
    """Bytes of the file, and of it compressed by gzip (level 9) and xz (its default)."""
    data = path.read_bytes()
    return {
        "file": len(data),
        "gzip": len(gzip.compress(data, 9, mtime=0)),
        "xz": len(lzma.compress(data)),
    }


def worth(
    dense: Artifact,
    sparse: Artifact,
    *,
    target: Target | str = "local",
    profile: DeviceProfile | str | Path = "host",
    progress: Progress = SILENT,
) -> Worth:
    """Compare two artifacts in file size, compressed size and latency. Raises TargetError, UsageError."""
    from edgeprune.measure.session import Session
    from edgeprune.records.profile import load_profile
    from edgeprune.records.profile_match import check_architecture
    from edgeprune.targets.parse import open_target

    if dense.sha256 == sparse.sha256:
        raise UsageError("the two artifacts are the same file", hint="compare a dense with a sparse one")
    before, after = compressed_sizes(dense.path), compressed_sizes(sparse.path)
    sizes = {kind: (before[kind], after[kind]) for kind in before}
    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    device = open_target(target) if isinstance(target, str) else target
    with Session(device, kind, progress=progress) as session:
        check_architecture(kind, session.machine, device.name)
        rounds = [(session.measure(dense), session.measure(sparse)) for _ in range(_ROUNDS)]
    failed = next((m for pair in rounds for m in pair if m.latency is None), None)
    if failed is not None:
        return Worth(
            sizes, None, None, None, None, failed.message or f"the measurement ended as {failed.outcome.value}"
        )
    return _judged(sizes, [pair[0] for pair in rounds], [pair[1] for pair in rounds])


def _judged(sizes: dict[str, tuple[int, int]], dense: Sequence[Measurement], sparse: Sequence[Measurement]) -> Worth:
    before, after = _median(dense, "percentile_ms"), _median(sparse, "percentile_ms")
    low = min(_p50(sparse, "lower_ms")) / max(_p50(dense, "upper_ms"))
    high = max(_p50(sparse, "upper_ms")) / min(_p50(dense, "lower_ms"))
    ratio = after / before
    faster, slower = high < 1 and ratio <= 1 - _LEAST, low > 1 and ratio >= 1 + _LEAST
    return Worth(sizes, (before, after), ratio, (low, high), "faster" if faster else "slower" if slower else "no gain")


def _p50(measurements: Sequence[Measurement], statistic: str) -> list[float]:
    return [float(getattr(m.latency, statistic)["p50"]) for m in measurements]


def _median(measurements: Sequence[Measurement], statistic: str) -> float:
    values = _p50(measurements, statistic)
    return math.fsum(values) / len(values)
