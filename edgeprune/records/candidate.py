"""A candidate: what to keep of a model. Plain data; the same candidate always has the same id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SCHEMA", "Candidate"]

SCHEMA = "edgeprune.candidate/1"

_SHOWN = 3  # groups in the repr


@dataclass(frozen=True, slots=True, repr=False)
class Candidate:
    """Per channel group the kept units (ascending indices), the dropped blocks, per weight a sparsity pattern.

    A group that is not named keeps all its units: `Candidate()` is the dense model.
    """

    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dropped_blocks: tuple[str, ...] = ()
    sparsity: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [f"{name} keeps {len(units)}" for name, units in self.kept.items()]
        more = [f", {len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
        parts = [", ".join(parts[:_SHOWN]) + "".join(more)] if parts else []
        parts += [f"{len(self.dropped_blocks)} blocks dropped"] if self.dropped_blocks else []
        parts += [f"{len(self.sparsity)} weights sparse"] if self.sparsity else []
        return f"Candidate({self.id}: {'; '.join(parts) or 'dense'})"

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON form."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_dense(self) -> bool:
        return not (self.kept or self.dropped_blocks or self.sparsity)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kept": {name: list(units) for name, units in sorted(self.kept.items())},
            "dropped_blocks": sorted(self.dropped_blocks),
            "sparsity": dict(sorted(self.sparsity.items())),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        return cls(
            kept={name: tuple(units) for name, units in data.get("kept", {}).items()},
            dropped_blocks=tuple(data.get("dropped_blocks", ())),
            sparsity=dict(data.get("sparsity", {})),
        )
