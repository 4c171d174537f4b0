"""What sparsity is worth: the compressed size of the file and the latency on the device, both measured."""

from __future__ import annotations

import gzip
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import UsageError
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgeprune.records.artifact import Artifact
    from edgeprune.records.comparison import Comparison
    from edgeprune.records.profile import DeviceProfile
    from edgeprune.targets.base import Target

__all__ = ["Worth", "compressed_sizes", "worth"]


@dataclass(frozen=True, slots=True)
class Worth:
    """Dense against sparse, run in turn on one device.

    `size_bytes` maps "file", "gzip" and "xz" to (dense, sparse). `latency_ms` are the medians, `ratio` sparse over
    dense with its 95 % interval. `verdict`: "faster", "slower", or "no gain" where they cannot be told apart; None, and
    `message` says why, where the latency could not be measured.
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
    from edgeprune.pipeline.compare import compare

    if dense.sha256 == sparse.sha256:
        raise UsageError("the two artifacts are the same file", hint="compare a dense with a sparse one")
    before, after = compressed_sizes(dense.path), compressed_sizes(sparse.path)
    sizes = {kind: (before[kind], after[kind]) for kind in before}
    return _judged(sizes, compare(sparse, dense, target=target, profile=profile, progress=progress))


def _judged(sizes: dict[str, tuple[int, int]], found: Comparison) -> Worth:
    if found.ratio is None or found.lower is None or found.upper is None or found.p50_ms is None:
        message = found.message or f"the comparison ended as {found.outcome.value}"
        return Worth(sizes, None, None, None, None, message)
    sparse_ms, dense_ms = found.p50_ms
    verdict = "no gain" if found.verdict == "no difference" else found.verdict
    return Worth(sizes, (dense_ms, sparse_ms), found.ratio, (found.lower, found.upper), verdict)
