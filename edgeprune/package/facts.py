"""What a package says of its models' memory, each figure with where it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune.records.lock import Lock

__all__ = ["MemoryFact", "dtype_bytes", "memory_facts", "quantised"]

_WIDTHS = {"bool": 1, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8} | {
    f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True, slots=True)
class MemoryFact:
    """A number of bytes. `source` says in a sentence whether it was measured or estimated, and how."""

    name: str  # "peak_memory", "arena"
    value: int
    kind: str  # "measured", "estimated"
    source: str


def memory_facts(lock: Lock) -> tuple[MemoryFact, ...]:
    """The peak that was measured, and the arena that is estimated; what is not known is left out."""
    found = []
    peak = lock.figures.get("peak_memory")
    if peak is not None and peak.value is not None:
        bound = peak.value if peak.upper is None else peak.upper
        device = lock.device
        runtime = " ".join(str(device[name]) for name in ("runtime", "runtime_version") if name in device)
        where = f" on {device.get('board') or device.get('cpu') or device.get('profile')}" if device else ""
        by = f" by {runtime}" if runtime else ""
        how = "upper bound of what the model adds to the runtime without it"
        found.append(MemoryFact("peak_memory", math.ceil(bound), peak.kind, f"{peak.kind}{where}{by}: {how}"))
    planned = lock.artifact.provenance.get("arena_bytes")
    if isinstance(planned, int):
        how = "estimated: TFLite Micro's plan of the tensors, without its scratch memory and its records of operators"
        found.append(MemoryFact("arena", planned, "estimated", how))
    elif lock.activation_bytes is not None:
        how = "estimated: the largest sum of float32 activations alive at once at batch 1, without the runtime's own"
        if quantised(lock):
            how += "; in int8 it is less"
        found.append(MemoryFact("arena", lock.activation_bytes, "estimated", how))
    return tuple(found)


def quantised(lock: Lock) -> str | None:
    """How the file was quantised ("int8 per channel ..."), None where it computes in floating point."""
    found = lock.artifact.provenance.get("quantised")
    return None if found is None else str(found)


def dtype_bytes(dtype: str) -> int | None:
    """Of one element of numpy's type of that name; None where it is not known."""
    return _WIDTHS.get(dtype)
